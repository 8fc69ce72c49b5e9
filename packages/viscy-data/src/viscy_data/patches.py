"""Batches of patches from many OME-Zarr stores.

Reading a patch *is* decoding the chunks under it, so a reader decodes a chunk once (a cache pool that all its arrays
share), keeps all reads of a batch in flight at the same time, and lets tensorstore write into the batch itself. Small
boxes that follow each other are one read: to wait for a box takes as long as to copy it.

>>> import tempfile, numpy as np
>>> from viscy_data.stores import PlateWriter, read_plate
>>> path = tempfile.mkdtemp() + "/plate.zarr"
>>> with PlateWriter(path, ["Phase", "GFP"]) as plate:
...     plate.write("A/1/0", np.arange(2 * 2 * 64 * 64, dtype=np.uint16).reshape(2, 2, 1, 64, 64))
>>> reader = PatchReader(read_plate(path))
>>> size = (1, 15, 15)
>>> y, x = (patch_start(np.array([center]), length) for center, length in zip([20.9, 30.2], size[1:]))
>>> zero = np.zeros(1, np.int64)
>>> reader.read(fov=zero, t=zero, channels=np.array([[1, -1]]), z=zero, y=y, x=x, size=size).shape
(1, 2, 1, 15, 15)
"""

from __future__ import annotations

import os
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, product
from math import isfinite
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from viscy_data.errors import InputError
from viscy_data.optional import require
from viscy_data.placement import clamp_centers, patch_start
from viscy_data.stores import FovInfo, FovKey, read_fov
from viscy_data.stores.arrays import begin_open, end_open
from viscy_data.stores.faults import (
    SERVER_PATIENCE_SECONDS,
    SPARSE,
    Faulty,
    read_channel,
    reading_context,
    wait_for,
)

if TYPE_CHECKING:
    import tensorstore as ts

__all__ = ["DEFAULT_CACHE_POOL_BYTES", "PatchReader", "clamp_centers", "patch_start"]

DEFAULT_CACHE_POOL_BYTES = 1 << 30
"""Decoded chunks kept in memory by a reader, in bytes."""

# Boxes are read, and looked through for NaN, in blocks of about this size, which are still in the processor's cache by
# then. Smaller boxes one by one take up to half as long again (benchmarks/patches.py).
_BLOCK_BYTES = 1 << 19


class PatchReader:
    """Read boxes from many FOVs into one batch.

    FOVs are opened when first needed and stay open in a bounded list, least recently used out first. A reader can be
    pickled (the copy opens everything anew) and used by several threads; after a fork it must not be used.

    Parameters
    ----------
    fovs : sequence of FovInfo or FovKey
        The FOVs, to which the numbers given to :meth:`read` refer. The metadata of those given by their key are read
        again when they are opened.
    array_key : str, optional
        Array of each FOV; by default the one that its metadata name. Axes in any order are read as TCZYX.
    cache_pool_bytes : int, default ``DEFAULT_CACHE_POOL_BYTES``
        Decoded chunks kept in memory; 0 keeps none. Stores must not change while a reader is in use.
    max_open : int, default 1024
        FOVs kept open.
    server_patience : float, default 120
        Seconds that a server may send nothing of what was asked for. One that is busy, fails or hangs up is asked again
        for about ten seconds.

    Attributes
    ----------
    fovs : tuple of FovKey
    opens, reads_issued : int
        How many FOVs were opened, and boxes asked of tensorstore, so far.
    nonfinite : dict of FovKey to int
        NaN and infinite pixels met so far, per FOV.
    missing : dict of FovKey to int
        Channels of boxes met so far with chunks that are not stored and read as the fill value, per FOV.

    Raises
    ------
    ImportError
        Without tensorstore: ``pip install 'viscy-data[triplet]'``.
    """

    def __init__(
        self,
        fovs: Sequence[FovInfo | FovKey],
        *,
        array_key: str | None = None,
        cache_pool_bytes: int = DEFAULT_CACHE_POOL_BYTES,
        max_open: int = 1024,
        server_patience: float = SERVER_PATIENCE_SECONDS,
    ) -> None:
        require("tensorstore", extra="triplet")
        if cache_pool_bytes < 0 or max_open < 1:
            raise ValueError(f"cache_pool_bytes={cache_pool_bytes} must be >= 0 and max_open={max_open} >= 1")
        self._given = tuple(fov if isinstance(fov, FovInfo) else FovKey(*fov) for fov in fovs)
        self.array_key, self.cache_pool_bytes, self.max_open = array_key, cache_pool_bytes, max_open
        self.server_patience = server_patience
        self._start()

    def _start(self) -> None:
        self._process, self._context, self._lock = os.getpid(), None, Lock()
        self.fovs = tuple(fov.key if isinstance(fov, FovInfo) else fov for fov in self._given)
        self._open: OrderedDict[FovKey, ts.TensorStore] = OrderedDict()
        self.opens = self.reads_issued = 0
        self.nonfinite: Counter[FovKey] = Counter()
        self.missing: Counter[FovKey] = Counter()

    def __getstate__(self) -> dict[str, Any]:
        names = ("_given", "array_key", "cache_pool_bytes", "max_open", "server_patience")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def read(
        self,
        fov: ArrayLike,
        t: ArrayLike,
        channels: ArrayLike,
        z: ArrayLike,
        y: ArrayLike,
        x: ArrayLike,
        size: tuple[int, int, int],
    ) -> np.ndarray:
        """Read a batch of boxes.

        Parameters
        ----------
        fov, t, z, y, x : array of int, shape (B,)
            Index into ``fovs``, frame, and first slice, row and column of each box.
        channels : array of int, shape (B, C)
            Channels of the store in the order wanted; -1 is a plane of zeros.
        size : tuple of int
            (Z, Y, X) of every box.

        Returns
        -------
        ndarray of float32, shape (B, C, Z, Y, X)
            NaN and infinite pixels are kept, counted in ``nonfinite``, and warned of once per FOV; so are, in
            ``missing``, chunks that are not stored, whose pixels are the fill value.

        Raises
        ------
        InputError
            A ValueError that names store, FOV and axis of a box that is not inside the image; or store, FOV, frame,
            channel and chunk of pixels that cannot be had.
        MissingInputError
            If there is no such store or array, or no longer.
        """
        if os.getpid() != self._process:
            raise RuntimeError("PatchReader cannot be used after a fork; start loader workers with spawn or forkserver")
        channels = np.asarray(channels, dtype=np.int64)
        rows = np.stack([np.asarray(column, dtype=np.int64) for column in (fov, t, z, y, x)])
        if channels.ndim != 2 or len(channels) != rows.shape[1]:
            raise ValueError(f"channels of shape {channels.shape} for {rows.shape[1]} boxes, expected (B, C)")
        arrays = self._arrays(sorted(set(rows[0].tolist())))
        shapes = np.array([array.shape for array in arrays.values()], np.int64).reshape(-1, 5)
        extents = shapes[np.searchsorted(list(arrays), rows[0])].T
        self._check_bounds(extents, rows, channels, size)
        batch = np.empty((*channels.shape, *size), np.float32)
        batch[channels < 0] = 0
        reads = _issue(arrays, rows, channels, batch)
        with self._lock:
            self.reads_issued += sum(len(read.views) for read in reads)
        self._collect(reads, arrays, rows, channels)
        return batch

    def _collect(
        self, reads: Sequence[_Read], arrays: Mapping[int, _Array], rows: np.ndarray, channels: np.ndarray
    ) -> None:
        """Wait for every box and look for NaN and infinite pixels."""
        may_be_nonfinite = any(array.may_be_nonfinite for array in arrays.values())
        with np.errstate(over="ignore", invalid="ignore"):
            for read in reads:
                self._complete(read, arrays, rows, channels)
                if may_be_nonfinite:
                    # A sum of squares is quick. Large numbers may make it infinite too; what counts is the exact look.
                    flat = read.place.reshape(-1)
                    if not isfinite(np.dot(flat, flat)):
                        self._count_nonfinite(read, rows)

    def _complete(self, read: _Read, arrays: Mapping[int, _Array], rows: np.ndarray, channels: np.ndarray) -> None:
        """Wait for boxes; where that fails, read them one by one, and those that fail channel by channel."""
        if self._has_arrived(read, arrays[int(rows[0, read.row])]):
            return
        for box in [read] if len(read.views) == 1 else read.split():
            array = arrays[int(rows[0, box.row])]
            if not self._has_arrived(box, array):
                self._read_channels(box, array, rows[1:, box.row].tolist(), channels[box.row, box.position].tolist())

    def _has_arrived(self, read: _Read, array: _Array) -> bool:
        try:
            wait_for(read.future, array.fov, self.server_patience)
        except Faulty:
            return False
        return True

    def _read_channels(self, box: _Read, array: _Array, corner: list[int], channels: list[int]) -> None:
        t, *first = corner
        extent = tuple(slice(start, start + n) for start, n in zip(first, box.place.shape[2:], strict=True))
        told = partial(self._report_missing, array.fov.key)
        for channel, own in zip(channels, box.place[0], strict=True):
            own[...] = read_channel(
                array.fov, array.store, t, channel, extent, told=told, patience=self.server_patience
            )

    def _report_missing(self, key: FovKey, told: str) -> None:
        if self._is_first(self.missing, key, 1):
            further = "further ones of this FOV are only counted (PatchReader.missing)"
            warnings.warn(f"{told}; {further}. {SPARSE}", stacklevel=7)

    def _is_first(self, counts: Counter[FovKey], key: FovKey, n: int) -> bool:
        with self._lock:
            first = key not in counts
            counts[key] += n
        return first

    def _count_nonfinite(self, read: _Read, rows: np.ndarray) -> None:
        for row, box in enumerate(read.place, start=read.row):
            if count := box.size - int(np.isfinite(box).sum()):
                self._report_nonfinite(self.fovs[rows[0, row]], rows[1, row], count)

    def _report_nonfinite(self, key: FovKey, frame: int, count: int) -> None:
        if self._is_first(self.nonfinite, key, count):
            warnings.warn(
                f"{key.store}, FOV {key.name}, frame {frame}: {count} pixels of a patch are NaN or infinite; "
                "further ones of this FOV are only counted (PatchReader.nonfinite). "
                "Leave the FOV out or write it anew",
                stacklevel=5,
            )

    def _arrays(self, numbers: list[int]) -> dict[int, _Array]:
        """Return the open arrays of FOVs (sorted numbers); what has to be opened is opened together."""
        if numbers and not 0 <= numbers[0] <= numbers[-1] < len(self.fovs):
            raise ValueError(f"FOV numbers {numbers[0]} to {numbers[-1]}, but there are {len(self.fovs)} FOVs")
        with self._lock:
            wanted = {number: self.fovs[number] for number in numbers}
            unopened = {key: number for number, key in wanted.items() if key not in self._open}
            infos = [self._describe(number) for number in unopened.values()]
            for fov, future in [(fov, self._begin_open(fov)) for fov in infos]:
                self._open[fov.key] = _end_open(fov, future)
                self.opens += 1
            for key in wanted.values():
                self._open.move_to_end(key)
            arrays = {number: self._open[key] for number, key in wanted.items()}
            while len(self._open) > self.max_open:
                self._open.popitem(last=False)
        return arrays

    def _describe(self, number: int) -> FovInfo:
        """Return what is known of a FOV; the metadata of one that was given by its key are read."""
        fov = self._given[number]
        if isinstance(fov, FovInfo) and self.array_key in (None, fov.array_key):
            return fov
        return read_fov(self.fovs[number], array_key=self.array_key)

    def _begin_open(self, fov: FovInfo) -> Any:
        if self._context is None:
            self._context = reading_context(self.cache_pool_bytes)
        return begin_open(fov, self._context, fill_missing=False)

    def _check_bounds(
        self, extents: np.ndarray, rows: np.ndarray, channels: np.ndarray, size: tuple[int, int, int]
    ) -> None:
        """Look for a box that leaves its image; ``extents`` is (5, B) along TCZYX."""
        first, limit = rows[1:], extents[[0, 2, 3, 4]]
        last = first + np.array([[1], *([length] for length in size)], np.int64)
        bad = (first < 0) | (last > limit)
        if bad.any():
            row, axis = np.argwhere(bad.T)[0]
            found = f"[{first[axis, row]}, {last[axis, row]})"
            self._refuse(rows[0, row], "TZYX"[axis], found, f"inside [0, {limit[axis, row]})")
        bad = (channels < -1) | (channels >= extents[1][:, None])
        if bad.any():
            row, position = np.argwhere(bad)[0]
            expected = f"one of the {extents[1, row]} channels, or -1 for none"
            self._refuse(rows[0, row], "C", str(channels[row, position]), expected)

    def _refuse(self, number: int, axis: str, found: str, expected: str) -> None:
        key = self.fovs[number]
        raise InputError(f"{key.store}, FOV {key.name}", field=f"axis {axis}", found=found, expected=expected)


class _Array(NamedTuple):
    """An open array that reads as float32."""

    fov: FovInfo
    store: ts.TensorStore
    shape: tuple[int, ...]
    may_be_nonfinite: bool


class _Read(NamedTuple):
    """Boxes on their way: views (1, C, Z, Y, X) that are read into rows of the batch which follow each other."""

    row: int
    position: slice
    views: list[ts.TensorStore]
    place: np.ndarray
    future: Any

    @classmethod
    def start(cls, row: int, position: slice, views: list[ts.TensorStore], place: np.ndarray) -> _Read:
        """Start reading into ``place``, the channels ``position`` of the rows from ``row`` on."""
        tensorstore = require("tensorstore", extra="triplet")
        written = tensorstore.array(place, copy=False, write=True).write(tensorstore.concat(views, axis=0))
        return cls(row, position, views, place, written.commit)

    def split(self) -> list[_Read]:
        """Start reading each box by itself."""
        return [
            _Read.start(self.row + number, self.position, [view], self.place[number : number + 1])
            for number, view in enumerate(self.views)
        ]


def _end_open(fov: FovInfo, future: Any) -> _Array:
    tensorstore = require("tensorstore", extra="triplet")
    store = end_open(fov, future)
    kind = store.dtype.numpy_dtype.kind
    if store.dtype != tensorstore.float32:
        store = tensorstore.cast(store, tensorstore.float32)
    return _Array(fov, store, tuple(store.shape), kind not in "iub")


def _channel_runs(channels: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the positions of channels that are adjacent in the store and in the patch: they are read together."""
    present = [(position, channel) for position, channel in enumerate(channels) if channel >= 0]
    # Position and channel both step by one within a run, so their place in the list tells runs apart.
    runs = groupby(enumerate(present), lambda entry: (entry[1][0] - entry[0], entry[1][1] - entry[0]))
    positions = [[position for _, (position, _) in members] for _, members in runs]
    return tuple(slice(run[0], run[-1] + 1) for run in positions)


def _blocks(layouts: Iterable[tuple[slice, ...]], n: int) -> Iterator[tuple[range, slice]]:
    """Yield up to ``n`` rows that follow each other, and channels that all of them have a run of."""
    first = 0
    for layout, members in groupby(layouts):
        stop = first + len(list(members))
        for row, position in product(range(first, stop, n), layout):
            yield range(row, min(row + n, stop)), position
        first = stop


def _issue(arrays: dict[int, _Array], rows: np.ndarray, channels: np.ndarray, batch: np.ndarray) -> list[_Read]:
    """Start all reads. What is done here per box is as much time as some boxes take, so it is kept short."""
    tensorstore = require("tensorstore", extra="triplet")
    wanted = list(map(tuple, channels.tolist()))
    layouts = {each: _channel_runs(each) for each in set(wanted)}
    # A server is waited for box by box, since it may be slow.
    is_remote = any("://" in array.fov.store for array in arrays.values())
    n = 1 if is_remote else max(1, _BLOCK_BYTES // max(1, batch[:1].nbytes))
    corners = (-rows).T.tolist()
    stores = [arrays[fov].store for fov in rows[0].tolist()]
    started = []
    for block, position in _blocks(map(layouts.__getitem__, wanted), n):
        window = tensorstore.IndexDomain(shape=(1, position.stop - position.start, *batch.shape[2:]))
        views = []
        for row in block:
            _, t, z, y, x = corners[row]
            # To move an array and cut a window costs half of what slicing along five axes costs.
            views.append(stores[row].translate_by[t, -wanted[row][position.start], z, y, x][window])
        started.append((block.start, position, views, batch[block.start : block.stop, position]))
    # All views before the first read: the threads that read would slow the making of further views down.
    return [_Read.start(*each) for each in started]
