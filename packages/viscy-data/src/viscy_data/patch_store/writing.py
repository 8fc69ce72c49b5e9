"""Write a patch store: shard by shard, in parallel, beside its place, from where a stopped copy goes on.

A shard appears under its name in one step, and the store under its own once all are there. What is unfinished is in a
hidden folder beside it, which says what it is to become: the same command goes on with it, another is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from viscy_data.cache import readable_size
from viscy_data.errors import InputError, raise_all
from viscy_data.files import refuse_existing, replacing
from viscy_data.optional import require
from viscy_data.patch_store.boxes import CellBoxes
from viscy_data.patch_store.layout import StoreRecord, read_record, shard_path
from viscy_data.patches import DEFAULT_CACHE_POOL_BYTES, PatchReader
from viscy_data.pieces import map_pieces
from viscy_data.stores import FovInfo, canonical_store
from viscy_data.windows import check_fovs_hold

__all__ = ["PatchStorePlan", "write_patch_store"]

_REMEDY = "remove it, or choose another path"


@dataclasses.dataclass(frozen=True)
class PatchStorePlan:
    """What will be written where, before anything is.

    Parameters
    ----------
    path : Path
        The store to be.
    boxes : CellBoxes
        As :meth:`CellBoxes.union` makes them.
    record : StoreRecord
        What the store will say of itself.
    """

    path: Path
    boxes: CellBoxes
    record: StoreRecord

    @classmethod
    def of(cls, path: str | Path, boxes: CellBoxes) -> PatchStorePlan:
        """Plan a store.

        Raises
        ------
        FileExistsError
            If something is at ``path``.
        InputError
            If boxes do not fit their images, the disk has not the room, or a stopped copy of something else is there.
        """
        path = Path(canonical_store(path))
        refuse_existing(path, remedy=_REMEDY)
        raise_all(check_fovs_hold(boxes.fovs, boxes.slices, boxes.yx_size, str(path)))
        plan = cls(path, boxes, StoreRecord.of(boxes))
        plan._refuse_other_copy()
        plan._refuse_full_disk()
        return plan

    @property
    def unfinished(self) -> Path:
        """The folder that becomes the store."""
        return self.path.with_name(f".{self.path.name}.unfinished")

    def missing_shards(self) -> list[int]:
        """Return the shards that a stopped copy has not written."""
        return [n for n in range(self.record.n_shards) if not shard_path(self.unfinished, n).exists()]

    @property
    def bytes_to_write(self) -> int:
        """Bytes that are not written yet."""
        return self.record.n_bytes * len(self.missing_shards()) // max(1, self.record.n_shards)

    def _refuse_other_copy(self) -> None:
        if not (self.unfinished / "zarr.json").exists():
            return
        if dataclasses.asdict(read_record(self.unfinished)) != dataclasses.asdict(self.record):
            raise InputError(
                str(self.unfinished),
                found="a stopped copy of other cells, or of images that have changed since",
                expected="nothing, or a stopped copy of the same",
                fix="remove this folder, or choose another path",
            )

    def _refuse_full_disk(self) -> None:
        above = next(folder for folder in self.path.parents if folder.exists())
        free = shutil.disk_usage(above).free
        if self.bytes_to_write > free:
            raise InputError(
                str(self.path),
                found=f"{readable_size(free)} free on the disk",
                expected=f"{readable_size(self.bytes_to_write)} for {self.record.n_cells} cells",
                fix="choose another disk, fewer cells or channels, or smaller patches",
            )


def write_patch_store(
    plan: PatchStorePlan,
    *,
    workers: int | None = None,
    dask: str | None = None,
    cache_pool_bytes: int = DEFAULT_CACHE_POOL_BYTES,
    advance: Callable[[int], object] = lambda n_cells: None,
) -> Path:
    """Write what is planned, or what a stopped copy has not written of it.

    Parameters
    ----------
    plan : PatchStorePlan
        Of :meth:`PatchStorePlan.of`.
    workers : int, optional
        Threads, or processes of ``dask="local"``, one per CPU by default: each reads and writes a shard at a time, that
        many times some 200 MB.
    dask : str, optional
        Scheduler of a Dask cluster that copies, or ``local``, see :func:`viscy_data.pieces.map_pieces`; threads by
        default.
    cache_pool_bytes : int, default ``DEFAULT_CACHE_POOL_BYTES``
        Decoded chunks of the images that each process keeps.
    advance : callable, optional
        Called with the number of cells of each shard that is written.

    Returns
    -------
    Path
        Of the store.

    Raises
    ------
    InputError
        If another process writes the same store.
    """
    unfinished = plan.unfinished
    plan.path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(unfinished.with_name(f"{unfinished.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        found, expected = "another process that writes it", "none"
        raise InputError(str(plan.path), found=found, expected=expected, fix="wait for it, or stop it") from None
    try:
        _begin(plan)
        shards = [_Shard.of(plan, number, cache_pool_bytes) for number in plan.missing_shards()]
        for n_cells in map_pieces(_write_shard, shards, workers=workers, dask=dask):
            advance(n_cells)
        refuse_existing(plan.path, remedy=_REMEDY)
        os.rename(unfinished, plan.path)
        Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()
    return plan.path


def _begin(plan: PatchStorePlan) -> None:
    """Write everything but the patches; the document of the group last, which says that the rest is there."""
    import zarr

    unfinished, record = plan.unfinished, plan.record
    if (unfinished / "zarr.json").exists():
        return
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "patches").mkdir(parents=True)
    zarr.create_array(
        unfinished / "cells", data=plan.boxes.places, chunks=(min(1 << 20, record.n_cells), 4), zarr_format=3
    )
    metadata = {"zarr_format": 3, "node_type": "array", "attributes": {}} | record.array_metadata()
    (unfinished / "patches" / "zarr.json").write_text(json.dumps(metadata, indent=1))
    group = {"zarr_format": 3, "node_type": "group", "attributes": record.attributes()}
    with replacing(unfinished / "zarr.json") as temporary:
        temporary.write_text(json.dumps(group))


def _open_target(root: Path) -> object:
    tensorstore = require("tensorstore", extra="triplet")
    # A shard of zeros is written too: one that is not there is one that is missing.
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{root}/patches/"},
        "store_data_equal_to_fill_value": True,
    }
    return tensorstore.open(spec, open=True, write=True).result()


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A piece of the work; written twice, it is the same."""

    root: Path
    cells: range
    boxes: CellBoxes
    dtype: str
    cache_pool_bytes: int

    @classmethod
    def of(cls, plan: PatchStorePlan, number: int, cache_pool_bytes: int) -> _Shard:
        cells = plan.record.shard(number)
        boxes = dataclasses.replace(plan.boxes, places=plan.boxes.places[cells.start : cells.stop])
        return cls(plan.unfinished, cells, boxes, plan.record.dtype, cache_pool_bytes)


@functools.lru_cache(maxsize=1)
def _reader(fovs: tuple[FovInfo, ...], cache_pool_bytes: int) -> PatchReader:
    """Return the one reader of a process, which all its shards share."""
    return PatchReader(fovs, cache_pool_bytes=cache_pool_bytes)


def _write_shard(shard: _Shard) -> int:
    boxes = shard.boxes
    fov, t = boxes.places[:, 0], boxes.places[:, 1]
    y, x = boxes.starts(boxes.yx_size).T
    z = np.full(len(boxes.places), boxes.slices.start)
    pixels = _reader(tuple(boxes.fovs), shard.cache_pool_bytes).read(
        fov, t, boxes.channels[fov], z, y, x, boxes.size[1:]
    )
    target = _open_target(shard.root)
    target[shard.cells.start : shard.cells.stop].write(pixels.astype(shard.dtype, copy=False)).result()
    return len(shard.cells)
