"""Read boxes out of a patch store.

Boxes are uncompressed, so a file of them is mapped into memory and a box is a view of it: the window that is wanted is
cut, turned into float32 and put into its place in one copy. Where boxes had to be fetched from the disk lately, all
boxes of a batch are announced to the system first, which then fetches them side by side; for boxes in memory that would
take half as long as copying them.
"""

from __future__ import annotations

import mmap
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from viscy_data.errors import InputError, raise_all
from viscy_data.patch_store.boxes import CellBoxes
from viscy_data.patch_store.layout import StoreRecord, describe_fov, read_places, read_record, shard_path
from viscy_data.patches import PatchReader
from viscy_data.stores import FovKey, canonical_store

try:
    import resource
except ImportError:  # Windows
    resource = None

__all__ = ["StoredPatches"]

_ANNOUNCED = 8  # batches, after one whose boxes were not all in memory
_MAX_OPEN = 16384  # maps; the system allows 65530 per process
_PROBES = 4
_REWRITE = "write the store again: dynaclr cache-patches"


class StoredPatches:
    """The boxes of the cells of a table, in a patch store. It can be pickled and used by several threads.

    Parameters
    ----------
    path : str or Path
        The store.
    boxes : CellBoxes
        Cells and boxes that are wanted: within what is stored, in any order.
    reader : PatchReader
        Of the FOVs of ``boxes``: some boxes are read from the images and compared, among them one of each FOV whose
        array has been written anew, or copied, since.

    Raises
    ------
    MissingInputError
        If there is no such store.
    InputError
        If it lacks cells or slices, is of other channels or pixels, has a smaller margin, or is of a newer version.
    """

    def __init__(self, path: str | Path, boxes: CellBoxes, reader: PatchReader) -> None:
        self.path = Path(canonical_store(path))
        self.record: StoreRecord = read_record(path)
        self._size = boxes.size[1:]
        self._first_slice = boxes.slices.start - self.record.first_slice
        raise_all(self._misfits(boxes))
        into, changed = self._match_fovs(boxes)
        self._numbers = self._match_cells(boxes, into)
        # Where the wanted boxes begin in those that are stored.
        self._offsets = (boxes.starts(boxes.yx_size) - boxes.starts(tuple(self.record.size[2:]))).astype(np.int32)
        self._start()
        self._compare_pixels(boxes, changed, reader)

    def _start(self) -> None:
        self._shards: OrderedDict[int, _Shard] = OrderedDict()
        self._lock = Lock()
        self._announced = _ANNOUNCED

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_shards", "_lock", "_announced")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return boxes, by rows of the table of cells: (B, C, Z, Y, X)."""
        depth, height, width = self._size
        z = slice(self._first_slice, self._first_slice + depth)
        numbers = self._numbers[rows]
        shards, places = np.divmod(numbers, self.record.shard_cells)
        opened = self._open(sorted(set(shards.tolist())))
        batch = np.empty((len(rows), self.record.size[0], *self._size), np.float32)
        fetches = _fetches()
        if self._announced:
            for shard, place in zip(shards.tolist(), places.tolist(), strict=True):
                opened[shard].announce(place)
        boxes = [opened[shard].box(place) for shard, place in zip(shards.tolist(), places.tolist(), strict=True)]
        for target, box, (y, x) in zip(batch, boxes, self._offsets[rows].tolist(), strict=True):
            target[...] = box[:, z, y : y + height, x : x + width]
        self._announced = _ANNOUNCED if _fetches() > fetches else max(0, self._announced - 1)
        return batch

    def _open(self, numbers: list[int]) -> dict[int, _Shard]:
        with self._lock:
            for number in numbers:
                if number not in self._shards:
                    self._shards[number] = _Shard.open(self.path, number, self.record)
                self._shards.move_to_end(number)
            opened = {number: self._shards[number] for number in numbers}
            while len(self._shards) > _MAX_OPEN:
                self._shards.popitem(last=False)
        return opened

    def _misfits(self, boxes: CellBoxes) -> list[InputError]:
        """Say where more is wanted around a cell than is stored."""
        n_channels, depth, *stored = self.record.size
        first, stop = self.record.first_slice, self.record.first_slice + depth
        errors = []
        if boxes.slices.start < first or boxes.slices.stop > stop:
            found, expected = f"slices {first} to {stop}", f"{boxes.slices.start} to {boxes.slices.stop}, end excluded"
            errors.append(self._error("z_range", found, expected))
        if any(want > have for want, have in zip(boxes.yx_size, stored, strict=True)):
            found = f"patches of {stored[0]} x {stored[1]} pixels"
            expected = f"at least {boxes.yx_size[0]} x {boxes.yx_size[1]}, which are read where there is augmentation"
            errors.append(self._error("yx_patch_size", found, expected))
        if boxes.size[0] != n_channels:
            errors.append(self._error("channels", f"{n_channels} of them", f"{boxes.size[0]}"))
        return errors

    def _match_fovs(self, boxes: CellBoxes) -> tuple[NDArray[np.int64], list[int]]:
        """Return the number in the store of each FOV (-1: not there), and which have changed on disk since."""
        stored = {FovKey(fov["store"], fov["name"]): (number, fov) for number, fov in enumerate(self.record.fovs)}
        into, changed = np.full(len(boxes.fovs), -1), []
        for own in np.unique(boxes.places[:, 0]).tolist():
            fov = boxes.fovs[own]
            if fov.key not in stored:
                raise self._error("cells", f"none of {fov.where}", "all cells of the data")
            number, then = stored[fov.key]
            now = describe_fov(fov, boxes.channel_names(own))
            for field in ("channels", "dtype"):
                if now[field] != then[field]:
                    raise self._error(field, f"{then[field]} of {fov.where}", f"{now[field]}")
            if now["shape"][2:] != then["shape"][2:]:
                raise self._error("shape", f"{then['shape']} of {fov.where}", f"{now['shape']}")
            if now["state"] != then["state"]:
                changed.append(own)
            into[own] = number
        return into, changed

    def _match_cells(self, boxes: CellBoxes, into: NDArray[np.int64]) -> NDArray[np.integer]:
        """Return the number of each cell's box."""
        stored = read_places(self.path, self.record)
        spans = [max(fov["shape"][axis] for fov in self.record.fovs) for axis in (0, 3, 4)]
        keys, own = _keys(stored, spans), _keys(np.column_stack([into[boxes.places[:, 0]], boxes.places[:, 1:]]), spans)
        numbers = np.minimum(np.searchsorted(keys, own), len(keys) - 1)
        absent = (keys[numbers] != own) | (boxes.places[:, 1] >= spans[0])
        if absent.any():
            fov, t, y, x = boxes.places[absent.argmax()].tolist()
            cell = f"the cell at frame {t}, row {y}, column {x} of {boxes.fovs[fov].where}"
            raise self._error("cells", f"not {cell}, and {absent.sum() - 1} others", "all cells of the data")
        return numbers.astype(np.int32) if len(keys) < 2**31 else numbers

    def _compare_pixels(self, boxes: CellBoxes, changed: list[int], reader: PatchReader) -> None:
        """Read some boxes from the images as well."""
        if not len(boxes.places):
            return
        fovs, first = np.unique(boxes.places[:, 0], return_index=True)
        spread = np.linspace(0, len(boxes.places) - 1, _PROBES).astype(np.int64)
        rows = np.unique(np.concatenate([spread, first[np.isin(fovs, changed)]]))
        fov, t = boxes.places[rows, 0], boxes.places[rows, 1]
        y, x = boxes.starts(boxes.yx_size)[rows].T
        z = np.full(len(rows), boxes.slices.start)
        images = reader.read(fov, t, boxes.channels[fov], z, y, x, self._size)
        for row, image, patch in zip(rows, images, self.read(rows), strict=True):
            if not np.array_equal(image, patch, equal_nan=True):
                number, frame = boxes.places[row, :2].tolist()
                raise self._error("pixels", f"others than frame {frame} of {boxes.fovs[number].where} has now", "equal")

    def _error(self, field: str, found: str, expected: str) -> InputError:
        return InputError(str(self.path), field=field, found=found, expected=expected, fix=_REWRITE)


class _Shard(NamedTuple):
    """A file of boxes, mapped into memory."""

    path: Path
    pages: mmap.mmap
    offsets: list[int]
    shape: tuple[int, ...]
    dtype: np.dtype
    n_bytes: int

    @classmethod
    def open(cls, root: Path, number: int, record: StoreRecord) -> _Shard:
        path = shard_path(root, number)
        try:
            with open(path, "rb") as opened:
                pages = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as err:
            raise _broken(path, "no file, or an empty one") from err
        last = len(record.shard(number))
        if len(pages) < record.index_bytes:
            raise _broken(path, f"{len(pages)} bytes")
        index = np.frombuffer(pages[-record.index_bytes : -4], "<u8").reshape(-1, 2)[:last]
        if (index[:, 1] != record.cell_bytes).any() or (index[:, 0] > len(pages) - record.cell_bytes).any():
            raise _broken(path, "an index of other boxes")
        dtype = np.dtype(record.dtype).newbyteorder("<")
        return cls(path, pages, index[:, 0].tolist(), tuple(record.size), dtype, record.cell_bytes)

    def box(self, place: int) -> NDArray[Any]:
        """Return a view of a box."""
        return np.ndarray(self.shape, self.dtype, self.pages, self.offsets[place])

    def announce(self, place: int) -> None:
        """Have the system begin to fetch a box, where it can."""
        if hasattr(mmap, "MADV_WILLNEED"):
            first = self.offsets[place] - self.offsets[place] % mmap.PAGESIZE
            self.pages.madvise(mmap.MADV_WILLNEED, first, self.offsets[place] + self.n_bytes - first)


def _fetches() -> int:
    """Count the pages that this process has waited for the disk for."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def _broken(path: Path, found: str) -> InputError:
    return InputError(str(path), found=found, expected="a file of a patch store", fix=_REWRITE)


def _keys(places: NDArray[np.integer], spans: list[int]) -> NDArray[np.int64]:
    """Return numbers in the order of places."""
    keys = places[:, 0].astype(np.int64)
    for axis, span in enumerate(spans, start=1):
        keys = keys * span + places[:, axis]
    return keys
