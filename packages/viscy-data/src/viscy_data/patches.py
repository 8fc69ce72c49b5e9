"""Batches of patches from many OME-Zarr stores.

Reading a patch *is* decoding the chunks under it, so a reader decodes a chunk once (a cache pool that all its arrays
share), keeps all reads of a batch in flight at the same time, and lets tensorstore write into the batch itself.

>>> import tempfile, numpy as np
>>> from viscy_data.stores import PlateWriter, read_plate
>>> path = tempfile.mkdtemp() + "/plate.zarr"
>>> with PlateWriter(path, ["Phase", "GFP"]) as plate:
...     plate.write("A/1/0", np.arange(2 * 2 * 64 * 64, dtype=np.uint16).reshape(2, 2, 1, 64, 64))
>>> reader = PatchReader([fov.key for fov in read_plate(path)])
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
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import isfinite
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from viscy_data._documents import open_documents
from viscy_data._optional import require
from viscy_data.errors import InputError, MissingInputError
from viscy_data.stores import FovKey

if TYPE_CHECKING:
    import tensorstore as ts

__all__ = ["DEFAULT_CACHE_POOL_BYTES", "PatchReader", "clamp_centers", "patch_start"]

DEFAULT_CACHE_POOL_BYTES = 1 << 30
"""Decoded chunks kept in memory by a reader, in bytes."""

# From this size on tensorstore writes into the batch itself, which saves a copy; below, handing the place over costs
# more than the copy (benchmarks/patches.py).
_IN_PLACE_BYTES = 1 << 18


def patch_start(center: ArrayLike, size: ArrayLike) -> np.ndarray:
    """Return the first pixel of a patch about a centre.

    Parameters
    ----------
    center : array of float
        In pixels; the nearest pixel is taken, halves upwards.
    size : int or array of int
        Even or odd; the patch covers ``[start, start + size)`` exactly.

    Returns
    -------
    ndarray of int64
        ``floor(center + 0.5) - size // 2``.
    """
    nearest = np.floor(np.asarray(center, dtype=np.float64) + 0.5).astype(np.int64)
    return nearest - np.asarray(size, dtype=np.int64) // 2


def clamp_centers(center: ArrayLike, size: ArrayLike, extent: ArrayLike) -> np.ndarray:
    """Move centres as little as needed for their patches to lie inside the image.

    Parameters
    ----------
    center : array of float
        In pixels.
    size, extent : int or array of int
        Of the patch and of the image, in pixels.

    Returns
    -------
    ndarray of float32
        Such that ``patch_start`` is between 0 and ``extent - size``, both included.

    Raises
    ------
    ValueError
        If a patch is larger than its image.
    """
    size, extent = np.asarray(size, dtype=np.int64), np.asarray(extent, dtype=np.int64)
    if (size > extent).any():
        raise ValueError(f"a patch of {size.max()} pixels does not fit an image of {extent.min()}")
    return np.clip(np.asarray(center, dtype=np.float64), size // 2, extent - size + size // 2).astype(np.float32)


class _ChannelRun(NamedTuple):
    """Adjacent channels of the store that are adjacent in the patch: one read."""

    position: slice
    channel: slice


class PatchReader:
    """Read boxes from many FOVs into one batch.

    FOVs are opened when first needed and stay open in a bounded list, least recently used out first. A reader can be
    pickled (the copy opens everything anew) and used by several threads; after a fork it must not be used.

    Parameters
    ----------
    fovs : sequence of FovKey
        The FOVs, to which the numbers given to :meth:`read` refer.
    array_key : str, default "0"
        Array of each FOV; five axes, TCZYX.
    cache_pool_bytes : int, default ``DEFAULT_CACHE_POOL_BYTES``
        Decoded chunks kept in memory; 0 keeps none. Stores must not change while a reader is in use.
    max_open : int, default 1024
        FOVs kept open.

    Attributes
    ----------
    opens, reads_issued : int
        How many FOVs were opened, and boxes asked of tensorstore, so far.
    nonfinite : dict of FovKey to int
        NaN and infinite pixels met so far, per FOV.

    Raises
    ------
    ImportError
        Without tensorstore: ``pip install 'viscy-data[triplet]'``.
    """

    def __init__(
        self,
        fovs: Sequence[FovKey],
        *,
        array_key: str = "0",
        cache_pool_bytes: int = DEFAULT_CACHE_POOL_BYTES,
        max_open: int = 1024,
    ) -> None:
        require("tensorstore", extra="triplet")
        if cache_pool_bytes < 0 or max_open < 1:
            raise ValueError(f"cache_pool_bytes={cache_pool_bytes} must be >= 0 and max_open={max_open} >= 1")
        self.fovs = tuple(FovKey(*key) for key in fovs)
        self.array_key, self.cache_pool_bytes, self.max_open = array_key, cache_pool_bytes, max_open
        self._start()

    def _start(self) -> None:
        self._process, self._context, self._lock = os.getpid(), None, Lock()
        self._open: OrderedDict[FovKey, ts.TensorStore] = OrderedDict()
        self._drivers: dict[str, str] = {}
        self.opens = self.reads_issued = 0
        self.nonfinite: Counter[FovKey] = Counter()

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("fovs", "array_key", "cache_pool_bytes", "max_open")}

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
            NaN and infinite pixels are kept, counted in ``nonfinite``, and warned of once per FOV.

        Raises
        ------
        InputError
            A ValueError that names store, FOV and axis of a box that is not inside the image.
        MissingInputError
            If there is no such store or array.
        """
        if os.getpid() != self._process:
            raise RuntimeError("PatchReader cannot be used after a fork; start loader workers with spawn")
        channels = np.asarray(channels, dtype=np.int64)
        rows = np.stack([np.asarray(column, dtype=np.int64) for column in (fov, t, z, y, x)])
        if channels.ndim != 2 or len(channels) != rows.shape[1]:
            raise ValueError(f"channels of shape {channels.shape} for {rows.shape[1]} boxes, expected (B, C)")
        arrays = self._arrays(rows[0])
        self._check_bounds(arrays, rows, channels, size)
        batch = np.empty((*channels.shape, *size), np.float32)
        batch[channels < 0] = 0
        boxes = list(_boxes(rows, channels))
        pending = _issue(arrays, boxes, batch, size)
        with self._lock:
            self.reads_issued += len(pending)
        self._collect(arrays, boxes, pending)
        return batch

    def _collect(
        self, arrays: dict[int, _Array], boxes: Sequence[_Box], pending: Sequence[tuple[np.ndarray, Any]]
    ) -> None:
        """Wait for every box, bring it to its place and look for NaN and infinite pixels."""
        # The square of a large number may overflow, hence the exact count where a sum of squares is not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            for (place, future), box in zip(pending, boxes, strict=True):
                try:
                    found = future.result()
                except Exception as err:
                    key = self.fovs[box.fov]
                    err.add_note(f"reading {key.store}, FOV {key.name}, frame {box.t}")
                    raise
                if found is not None:
                    place[...] = found
                if arrays[box.fov].may_be_nonfinite:
                    flat = place.reshape(-1)
                    if not isfinite(np.dot(flat, flat)) and (count := flat.size - np.isfinite(flat).sum()):
                        self._report_nonfinite(self.fovs[box.fov], box.t, int(count))

    def _report_nonfinite(self, key: FovKey, frame: int, count: int) -> None:
        with self._lock:
            first = key not in self.nonfinite
            self.nonfinite[key] += count
        if first:
            warnings.warn(
                f"{key.store}, FOV {key.name}, frame {frame}: {count} pixels of a patch are NaN or infinite; "
                "further ones of this FOV are only counted (PatchReader.nonfinite). "
                "Leave the FOV out or write it anew",
                stacklevel=4,
            )

    def _arrays(self, fov: np.ndarray) -> dict[int, _Array]:
        """Return the open arrays of a batch by FOV number; what has to be opened is opened together."""
        numbers = np.unique(fov).tolist()
        if numbers and not 0 <= numbers[0] <= numbers[-1] < len(self.fovs):
            raise ValueError(f"FOV numbers {numbers[0]} to {numbers[-1]}, but there are {len(self.fovs)} FOVs")
        with self._lock:
            wanted = {number: self.fovs[number] for number in numbers}
            opening = {key: self._begin_open(key) for key in set(wanted.values()) if key not in self._open}
            for key, future in opening.items():
                self._open[key] = _end_open(key, self.array_key, future)
                self.opens += 1
            for key in wanted.values():
                self._open.move_to_end(key)
            arrays = {number: self._open[key] for number, key in wanted.items()}
            while len(self._open) > self.max_open:
                self._open.popitem(last=False)
        return arrays

    def _begin_open(self, key: FovKey) -> Any:
        tensorstore = require("tensorstore", extra="triplet")
        if self._context is None:
            self._context = tensorstore.Context({"cache_pool": {"total_bytes_limit": self.cache_pool_bytes}})
        if key.store not in self._drivers:
            is_v3 = open_documents(key.store).read("zarr.json") is not None
            self._drivers[key.store] = "zarr3" if is_v3 else "zarr"
        path = f"{key.store}/{key.name}/{self.array_key}/"
        spec = {
            "driver": self._drivers[key.store],
            "kvstore": path if "://" in path else {"driver": "file", "path": path},
            "recheck_cached_data": "open",  # else every cached chunk costs a look at its file
        }
        return tensorstore.open(spec, open=True, read=True, context=self._context)

    def _check_bounds(
        self, arrays: dict[int, _Array], rows: np.ndarray, channels: np.ndarray, size: tuple[int, int, int]
    ) -> None:
        numbers, inverse = np.unique(rows[0], return_inverse=True)
        extent = np.array([arrays[number].shape for number in numbers.tolist()], np.int64).reshape(-1, 5)[inverse]
        first = np.stack([rows[1], *rows[2:]], axis=1)  # (B, 4) along T, Z, Y, X
        last = first + np.array([1, *size], np.int64)
        bad = (first < 0) | (last > extent[:, [0, 2, 3, 4]])
        if bad.any():
            row, axis = np.argwhere(bad)[0]
            limit = extent[row, [0, 2, 3, 4][axis]]
            self._refuse(rows[0, row], "TZYX"[axis], f"[{first[row, axis]}, {last[row, axis]})", f"inside [0, {limit})")
        bad_channel = (channels < -1) | (channels >= extent[:, 1:2])
        if bad_channel.any():
            row, position = np.argwhere(bad_channel)[0]
            expected = f"one of the {extent[row, 1]} channels, or -1 for none"
            self._refuse(rows[0, row], "C", str(channels[row, position]), expected)

    def _refuse(self, number: int, axis: str, found: str, expected: str) -> None:
        key = self.fovs[number]
        raise InputError(f"{key.store}, FOV {key.name}", field=f"axis {axis}", found=found, expected=expected)


class _Array(NamedTuple):
    """An open array that reads as float32."""

    store: ts.TensorStore
    shape: tuple[int, ...]
    may_be_nonfinite: bool


class _Box(NamedTuple):
    """One read: row of the batch, FOV, frame, where it starts (Z, Y, X), and the channels."""

    row: int
    fov: int
    t: int
    start: tuple[int, int, int]
    run: _ChannelRun


def _end_open(key: FovKey, array_key: str, future: Any) -> _Array:
    where = f"{key.store}, FOV {key.name}"
    tensorstore = require("tensorstore", extra="triplet")
    try:
        store = future.result()
    except ValueError as err:
        if "NOT_FOUND" in str(err):
            raise MissingInputError(where, found=f"no array {array_key!r}", expected="an OME-Zarr array") from err
        err.add_note(f"opening {where}")
        raise
    if len(store.shape) != 5:
        raise InputError(where, found=f"an array of shape {tuple(store.shape)}", expected="five axes, TCZYX")
    kind = store.dtype.numpy_dtype.kind
    if store.dtype != tensorstore.float32:
        store = tensorstore.cast(store, tensorstore.float32)
    return _Array(store, tuple(store.shape), kind not in "iub")


def _boxes(rows: np.ndarray, channels: np.ndarray) -> Iterator[_Box]:
    runs: dict[tuple[int, ...], list[_ChannelRun]] = {}
    for row, ((fov, t, *start), wanted) in enumerate(zip(rows.T.tolist(), map(tuple, channels.tolist()), strict=True)):
        if wanted not in runs:
            runs[wanted] = list(_channel_runs(wanted))
        for run in runs[wanted]:
            yield _Box(row, fov, t, start, run)


def _channel_runs(channels: tuple[int, ...]) -> Iterator[_ChannelRun]:
    present = [(position, channel) for position, channel in enumerate(channels) if channel >= 0]
    # Position and channel both step by one within a run, so their place in the list tells runs apart.
    for _, members in groupby(enumerate(present), lambda entry: (entry[1][0] - entry[0], entry[1][1] - entry[0])):
        run = [pair for _, pair in members]
        (position, channel), n = run[0], len(run)
        yield _ChannelRun(slice(position, position + n), slice(channel, channel + n))


def _issue(
    arrays: dict[int, _Array], boxes: Sequence[_Box], batch: np.ndarray, size: tuple[int, int, int]
) -> list[tuple[np.ndarray, Any]]:
    """Start all reads; a future gives the pixels, or None when they are in their place already."""
    tensorstore = require("tensorstore", extra="triplet")
    nz, ny, nx = size
    places = [batch[row, run.position] for row, _, _, _, run in boxes]
    # All views before the first read: the threads that read would slow the making of further views down.
    views = [
        arrays[fov].store[t, run.channel, z : z + nz, y : y + ny, x : x + nx] for _, fov, t, (z, y, x), run in boxes
    ]
    if batch[:1].nbytes < _IN_PLACE_BYTES:
        return [(place, view.read()) for place, view in zip(places, views, strict=True)]
    return [
        (place, tensorstore.array(place, copy=False, write=True).write(view).commit)
        for place, view in zip(places, views, strict=True)
    ]
