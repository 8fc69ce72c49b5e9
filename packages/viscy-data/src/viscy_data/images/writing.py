"""Write a planned import: block by block, continued where it was interrupted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from viscy_data.errors import InputError
from viscy_data.images.plan import FovPlan, ImportPlan
from viscy_data.images.sources import OpenFiles
from viscy_data.stores import GrowingPlate, PlateWriter

__all__ = ["import_images"]

_CHUNK = 256  # pixels: as fast to read patches from as 128, and to write as planes
_SLICES = 16  # of a chunk, and of what is held in memory at once


def import_images(
    plan: ImportPlan,
    output: str | Path,
    overwrite: bool = False,
    on_block: Callable[[int, int], None] = lambda n_done, n_blocks: None,
) -> Path:
    """Write the plate of a plan.

    Planes are read one by one; up to 16 slices of one channel and frame are in memory at once and make one file of the
    store, in chunks of 256 x 256 pixels. Until the plate is whole it is ``<output>.parts``; the same call continues it.

    Parameters
    ----------
    plan : ImportPlan
    output : str or Path
    overwrite : bool, default False
        Replace an existing plate, once the new one is whole, and start an interrupted import over.
    on_block : callable, optional
        Told how many blocks are written, and how many there are, before the first block and after each one.

    Returns
    -------
    Path
        Of the plate.

    Raises
    ------
    FileExistsError
        If there is a plate and ``overwrite`` is False.
    InputError
        If an interrupted import was another one, or a file cannot be read; what is written by then is kept.
    """
    growing = GrowingPlate(Path(output))
    fix = "repeat the interrupted import as it was, or start over with --overwrite"
    growing.begin(_manifest(plan), lambda path: _create(plan, path), overwrite, fix=fix)
    n_done, n_blocks = growing.n_done(), sum(_n_blocks(fov) for fov in plan.fovs)
    on_block(n_done, n_blocks)
    with OpenFiles(plan.axes) as files:
        for number, (fov, t, c, slices) in enumerate(_blocks(plan), 1):
            if number <= n_done:
                continue
            block = np.zeros((slices.stop - slices.start, *fov.shape[3:]), fov.dtype)
            for z in range(slices.start, slices.stop):
                _read_into(block[z - slices.start], fov, (t, c, z), files)
            growing.array(fov.name)[t, c, slices] = block
            growing.set_done(number)
            on_block(number, n_blocks)
    growing.finish(overwrite)
    return growing.path


def _read_into(plane: np.ndarray, fov: FovPlan, at: tuple[int, int, int], files: OpenFiles) -> None:
    """Read one plane; one that is missing, which the plan has said, stays zero."""
    source = fov.source(*at)
    if source is None:
        return
    placed, inside = source
    pixels = files.read(placed.path, placed.position, *inside)
    if pixels.shape != plane.shape or pixels.dtype.kind != plane.dtype.kind or pixels.itemsize != plane.itemsize:
        found = f"a plane of {pixels.shape} {pixels.dtype}"
        raise InputError(
            str(placed.path), found=found, expected=f"{plane.shape} {plane.dtype}, as the file says of itself"
        )
    plane[...] = pixels


def _blocks(plan: ImportPlan) -> Iterator[tuple[FovPlan, int, int, slice]]:
    for fov in plan.fovs:
        n_slices = fov.shape[2]
        for t, c in np.ndindex(fov.shape[:2]):
            for z in range(0, n_slices, _SLICES):
                yield fov, t, c, slice(z, min(z + _SLICES, n_slices))


def _n_blocks(fov: FovPlan) -> int:
    return fov.shape[0] * fov.shape[1] * math.ceil(fov.shape[2] / _SLICES)


def _create(plan: ImportPlan, path: Path) -> None:
    """Make the plate of zeros: one shard per block, so that every block is one file, written once."""
    height, width = (max(fov.shape[axis] for fov in plan.fovs) for axis in (3, 4))
    depth = min(_SLICES, max(fov.shape[2] for fov in plan.fovs))
    chunk = (1, 1, depth, min(_CHUNK, height), min(_CHUNK, width))
    shard = (1, 1, depth, *(math.ceil(size / own) * own for size, own in zip((height, width), chunk[3:], strict=True)))
    with PlateWriter(path, plan.channel_names, chunks=chunk, shards=shard) as plate:
        for fov in plan.fovs:
            plate.create(fov.name, fov.shape, fov.dtype, fov.scale)


def _manifest(plan: ImportPlan) -> dict[str, object]:
    """Return what an interrupted import must have in common with the one that continues it."""
    digest = hashlib.sha256()
    for fov in plan.fovs:
        for placed in fov.sources.values():
            about = placed.path.stat()
            place = (fov.name, placed.t, placed.channel, placed.z, placed.position)
            digest.update(repr((*place, str(placed.path), about.st_size, about.st_mtime_ns)).encode())
    return {
        "files": digest.hexdigest(),
        "FOVs": {fov.name: [list(fov.shape), str(fov.dtype), list(fov.scale)] for fov in plan.fovs},
        "channels": list(plan.channel_names),
    }
