"""PatchReader beside bare tensorstore, for the same boxes, in the same run.

``python benchmarks/patches.py [--quick]``

The limit is tensorstore with everything prepared: one context, arrays open, views made, all reads in flight; it ends
when the last of them is there, one array per box. PatchReader begins with numbers and ends with one float32 batch.
Both run in turn, and medians are compared; a ratio of 1.00 is the limit. A warm page cache is assumed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import tensorstore as ts

from viscy_data.patches import PatchReader
from viscy_data.stores import FovKey, PlateWriter, read_plate

EXTENT = 1024


class Case(NamedTuple):
    """Boxes of one size (Z, Y, X), and how the images that they are cut from are chunked along Y and X."""

    name: str
    size: tuple[int, int, int]
    chunk: int
    n_frames: int


CASES = [
    Case("2 x 1 x 96 x 96, chunks 256", (1, 96, 96), 256, 8),
    Case("2 x 1 x 96 x 96, whole planes", (1, 96, 96), EXTENT, 8),
    Case("2 x 15 x 160 x 160, chunks 256", (15, 160, 160), 256, 2),
]


def write_images(path: Path, case: Case) -> list[FovKey]:
    """Write four FOVs of counts with photon noise, which compress about as microscope images do."""
    rng = np.random.default_rng(0)
    shape, chunks = (case.n_frames, 2, case.size[0], EXTENT, EXTENT), (1, 1, case.size[0], case.chunk, case.chunk)
    with PlateWriter(path, ["Phase", "GFP"], version="0.4", chunks=chunks) as plate:
        for fov in range(4):
            brightness = rng.gamma(4, 100, (1, 2, 1, EXTENT, EXTENT))
            counts = rng.poisson(brightness, (1, *shape[1:])).astype(np.float32)
            plate.write(f"A/1/{fov}", np.broadcast_to(counts, shape))
    return [fov.key for fov in read_plate(path)]


def draw_boxes(case: Case, n: int) -> dict:
    rng = np.random.default_rng(1)
    free = [1, *(EXTENT - length + 1 for length in case.size[1:])]
    starts = {axis: rng.integers(0, stop, n) for axis, stop in zip("zyx", free, strict=True)}
    fov, t = rng.integers(0, 4, n), rng.integers(0, case.n_frames, n)
    return {"fov": fov, "t": t, "channels": np.tile([0, 1], (n, 1)), **starts, "size": case.size}


def prepare_limit(fovs: list[FovKey], boxes: dict, pool: int) -> Callable[[], list[np.ndarray]]:
    context = ts.Context({"cache_pool": {"total_bytes_limit": pool}})
    arrays = [
        ts.open(
            {
                "driver": "zarr",
                "kvstore": {"driver": "file", "path": f"{key.store}/{key.name}/0/"},
                "recheck_cached_data": "open",
            },
            context=context,
            read=True,
            open=True,
        ).result()
        for key in fovs
    ]
    columns = (boxes[name].tolist() for name in ("fov", "t", "z", "y", "x"))
    nz, ny, nx = boxes["size"]
    views = [arrays[fov][t, 0:2, z : z + nz, y : y + ny, x : x + nx] for fov, t, z, y, x in zip(*columns, strict=True)]
    return lambda: [future.result() for future in [view.read() for view in views]]


def compare(case: Case, n: int, pool: int, rounds: int, folder: Path) -> tuple[float, float]:
    """Return the median seconds of the limit and of PatchReader."""
    fovs, boxes = write_images(folder / "images.zarr", case), draw_boxes(case, n)
    limit, reader = prepare_limit(fovs, boxes, pool), PatchReader(fovs, cache_pool_bytes=pool)
    np.testing.assert_array_equal(np.stack(limit()), reader.read(**boxes))
    seconds: dict[str, list[float]] = {"limit": [], "reader": []}
    for _ in range(rounds):
        for name, read in (("limit", limit), ("reader", lambda: reader.read(**boxes))):
            start = time.perf_counter()
            read()
            seconds[name].append(time.perf_counter() - start)
    return median(seconds["limit"]), median(seconds["reader"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="16 boxes and 3 rounds instead of 128 and 9")
    quick = parser.parse_args().quick
    n, rounds = (16, 3) if quick else (128, 9)
    print(f"{n} boxes, median of {rounds} rounds\n")
    print(f"{'case':<32} {'cache pool':>10} {'tensorstore':>12} {'PatchReader':>12} {'ratio':>6} {'patches/s':>10}")
    for case in CASES:
        for pool in (0, 4 << 30):
            with tempfile.TemporaryDirectory() as folder:
                limit, reader = compare(case, n, pool, rounds, Path(folder))
            state = "warm" if pool else "off"
            print(
                f"{case.name:<32} {state:>10} {limit * 1e3:>9.1f} ms {reader * 1e3:>9.1f} ms"
                f" {reader / limit:>6.2f} {n / reader:>10,.0f}"
            )


if __name__ == "__main__":
    main()
