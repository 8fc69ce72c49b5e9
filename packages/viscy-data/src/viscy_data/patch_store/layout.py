"""How a patch store lies on disk.

A Zarr v3 group with two arrays. ``patches``, (N, C, Z, Y, X): a chunk is the box of one cell, uncompressed, and some
tens of megabytes of boxes are one file (a shard). ``cells``, (N, 4): FOV number, frame, row and column of each, in
ascending order. Attributes say which images the boxes are from. Any reader of Zarr v3 opens it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from viscy_data.errors import InputError, MissingInputError, reading_file
from viscy_data.patch_store.boxes import CellBoxes
from viscy_data.schema import refuse_newer, written_by
from viscy_data.stores import FovInfo, read_attributes

__all__ = ["SCHEMA_VERSION", "StoreRecord", "is_patch_store", "read_record"]

SCHEMA_VERSION = 1
"""Of the layout. Stores of a newer one are refused."""

_ATTRIBUTE, _WRITER = "viscy_patch_store", "written_by"
_SHARD_BYTES = 1 << 26
_FIX = "dynaclr cache-patches -c fit.yml -o patches.zarr"
_AGAIN = f"write it again: {_FIX}"
_RECORD, _CELLS = "the record of a patch store", "the cells of a patch store"
_EXACT = ("uint8", "int8", "uint16", "int16", "float16")  # pixels that float32 holds exactly, in fewer bytes


@dataclasses.dataclass(frozen=True)
class StoreRecord:
    """What a store says of itself.

    Parameters
    ----------
    n_cells : int
        Boxes.
    size : list of int
        (C, Z, Y, X) of a box.
    first_slice : int
        Of the image, that is the first of the box.
    dtype : str
        Of the pixels: that of the images where all have the same and it is small, float32 otherwise.
    shard_cells : int
        Boxes per file.
    fovs : list of dict
        ``store``, ``name``, ``shape``, ``dtype``, ``channels`` (name by position, None for none) of each FOV, and
        ``state``: size in bytes and mtime in nanoseconds of the document that describes its array, None for a URL.
    cells_digest : str
        Of the array ``cells``.
    schema_version : int
        Of the layout.
    """

    n_cells: int
    size: list[int]
    first_slice: int
    dtype: str
    shard_cells: int
    fovs: list[dict[str, Any]]
    cells_digest: str
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(cls, boxes: CellBoxes) -> StoreRecord:
        """Describe the store that boxes would make."""
        dtypes = {fov.dtype for fov in boxes.fovs}
        dtype = dtypes.pop() if len(dtypes) == 1 and dtypes <= set(_EXACT) else "float32"
        n_bytes = math.prod(boxes.size) * np.dtype(dtype).itemsize
        n_cells = len(boxes.places)
        return cls(
            n_cells=n_cells,
            size=list(boxes.size),
            first_slice=boxes.slices.start,
            dtype=dtype,
            shard_cells=max(1, min(_SHARD_BYTES // n_bytes, n_cells)),
            fovs=[describe_fov(fov, boxes.channel_names(number)) for number, fov in enumerate(boxes.fovs)],
            cells_digest=digest_of(boxes.places),
        )

    @property
    def cell_bytes(self) -> int:
        """Bytes of one box."""
        return math.prod(self.size) * np.dtype(self.dtype).itemsize

    @property
    def n_shards(self) -> int:
        """Files of ``patches``."""
        return -(-self.n_cells // self.shard_cells)

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole store, but for its small documents; an index of 16 bytes per box is in each file."""
        return self.n_cells * (self.cell_bytes + 16) + self.n_shards * self.shard_cells * 16

    @property
    def index_bytes(self) -> int:
        """Bytes at the end of each file: offset and length of every box, and their checksum."""
        return 16 * self.shard_cells + 4

    def shard(self, number: int) -> range:
        """Return the boxes of a file."""
        return range(number * self.shard_cells, min(self.n_cells, (number + 1) * self.shard_cells))

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the group, for :func:`read_record`, and what wrote it."""
        return {_ATTRIBUTE: dataclasses.asdict(self) | {_WRITER: written_by("viscy-data")}}

    def array_metadata(self) -> dict[str, Any]:
        """Return the metadata of ``patches`` in Zarr v3."""
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        sharding = {
            "chunk_shape": [1, *self.size],
            "codecs": [little],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        return {
            "shape": [self.n_cells, *self.size],
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [self.shard_cells, *self.size]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "fill_value": 0,
            "dimension_names": ["cell", "c", "z", "y", "x"],
        }


def shard_path(root: Path, number: int) -> Path:
    """Return the file of a shard."""
    return root / "patches" / f"c.{number}.0.0.0.0"


def describe_fov(fov: FovInfo, channels: list[str | None]) -> dict[str, Any]:
    """Say what decides the pixels of a FOV."""
    description = {"store": fov.store, "name": fov.name, "shape": list(fov.shape), "dtype": fov.dtype}
    return description | {"channels": channels, "state": _array_state(fov)}


def is_patch_store(path: str | Path) -> bool:
    """Tell whether a folder is a patch store."""
    try:
        return Path(path).is_dir() and _ATTRIBUTE in read_attributes(path)
    except (MissingInputError, InputError):
        return False


def read_record(path: str | Path) -> StoreRecord:
    """Read what a patch store says of itself.

    Raises
    ------
    MissingInputError
        If there is nothing.
    InputError
        If it is something else, or of a newer version.
    """
    path = Path(path)
    if not path.exists():
        raise MissingInputError(str(path), found="nothing", expected="a patch store", fix=_FIX)
    if not is_patch_store(path):
        raise InputError(str(path), found="something else", expected="a patch store", fix=_FIX)
    content = read_attributes(path)[_ATTRIBUTE]
    if not isinstance(content, dict):
        raise _damaged(path, "no fields", _RECORD)
    writer = content.pop(_WRITER, None)  # no part of what has to be equal where a copy goes on
    refuse_newer(str(path), content.get("schema_version"), SCHEMA_VERSION, "viscy-data", writer)
    if set(content) != {field.name for field in dataclasses.fields(StoreRecord)}:
        raise _damaged(path, f"the fields {', '.join(sorted(content))}", _RECORD)
    if wrong := [name for name, holds in _checks(content).items() if not holds]:
        raise _damaged(path, ", ".join(f"{name} {content[name]!r}" for name in wrong), _RECORD, wrong[0])
    return StoreRecord(**content)


def _checks(content: dict[str, Any]) -> dict[str, bool]:
    """Tell which fields of a record hold what they have to."""
    is_number = {name: isinstance(content[name], int) and content[name] >= 0 for name in ("n_cells", "first_slice")}
    own = {"store": str, "name": str, "shape": list, "dtype": str, "channels": list}
    return is_number | {
        "size": _is_shape(content["size"], 4),
        "dtype": content["dtype"] in (*_EXACT, "float32"),
        "shard_cells": isinstance(content["shard_cells"], int) and content["shard_cells"] > 0,
        "fovs": isinstance(content["fovs"], list)
        and all(
            isinstance(fov, dict)
            and all(isinstance(fov.get(name), kind) for name, kind in own.items())
            and _is_shape(fov["shape"], 5)
            for fov in content["fovs"]
        ),
        "cells_digest": isinstance(content["cells_digest"], str),
    }


def _is_shape(value: Any, n_axes: int) -> bool:
    return isinstance(value, list) and len(value) == n_axes and all(isinstance(n, int) and n > 0 for n in value)


def read_places(path: str | Path, record: StoreRecord) -> NDArray[np.int32]:
    """Read FOV number, frame, row and column of every box of a store.

    Raises
    ------
    InputError
        If they are not those that were written.
    """
    import zarr

    with reading_file(path, _CELLS, _AGAIN):
        places = zarr.open_array(Path(path) / "cells", mode="r")[...]
    if digest_of(places) != record.cells_digest:
        raise _damaged(path, "other cells than were written", _CELLS, "cells")
    return places


def _damaged(path: str | Path, found: str, expected: str, field: str = "") -> InputError:
    return InputError(str(path), field=field, found=found, expected=expected, fix=_AGAIN)


def digest_of(places: NDArray[np.int32]) -> str:
    """Return the checksum of the array ``cells``."""
    return hashlib.blake2b(np.ascontiguousarray(places).tobytes(), digest_size=16).hexdigest()


def _array_state(fov: FovInfo) -> list[int] | None:
    if "://" in fov.store:
        return None
    for name in ("zarr.json", ".zarray"):
        document = Path(fov.path) / fov.array_key / name
        if document.exists():
            state = os.stat(document)
            return [state.st_size, state.st_mtime_ns]
    return None
