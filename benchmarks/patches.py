"""PatchReader beside bare tensorstore, for the same boxes, in the same run.

``python benchmarks/patches.py [--quick]``

PatchReader begins with numbers and ends with one float32 batch, whose pixels it has looked through for NaN. Beside it
stand two forms of bare tensorstore, with one context, arrays open and all reads in flight: "batch" does the same job
by hand (slice, read, stack), "read" is the reading alone: views are ready, and it ends with one array per box.
The three run in turn, and medians are compared; 1.15 beside "batch" is the limit. A warm page cache is assumed.

The pool of decoded chunks is off, or warm: all chunks are in it. The last rows are of a cold pool, which helps where
batches share chunks: four or eight batches of the same planes, one after the other, and a new PatchReader in each
round, whose opening counts. What is done by hand has no pool there; within a batch tensorstore decodes a chunk once
without one. How much a cold pool can give is said by "pool": the same by hand, opened anew in each round, with a pool.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import tensorstore as ts

from viscy_data.patches import PatchReader
from viscy_data.stores import FovKey, PlateWriter, read_plate

EXTENT = 1024
POOL_BYTES = 4 << 30
N_COLD = (4, 8)


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


def draw_boxes(case: Case, n: int, seed: int = 1) -> dict:
    rng = np.random.default_rng(seed)
    free = [1, *(EXTENT - length + 1 for length in case.size[1:])]
    starts = {axis: rng.integers(0, stop, n) for axis, stop in zip("zyx", free, strict=True)}
    fov, t = rng.integers(0, 4, n), rng.integers(0, case.n_frames, n)
    return {"fov": fov, "t": t, "channels": np.tile([0, 1], (n, 1)), **starts, "size": case.size}


def open_arrays(fovs: list[FovKey], pool: int) -> list[ts.TensorStore]:
    context = ts.Context({"cache_pool": {"total_bytes_limit": pool}})
    return [
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


def bare_forms(arrays: list[ts.TensorStore], boxes: dict) -> dict[str, Callable[[], object]]:
    columns = [boxes[name].tolist() for name in ("fov", "t", "z", "y", "x")]
    nz, ny, nx = boxes["size"]

    def make_views() -> list[ts.TensorStore]:
        rows = zip(*columns, strict=True)
        return [arrays[fov][t, 0:2, z : z + nz, y : y + ny, x : x + nx] for fov, t, z, y, x in rows]

    def read(views: list[ts.TensorStore]) -> list[np.ndarray]:
        return [future.result() for future in [view.read() for view in views]]

    ready = make_views()
    return {"read": lambda: read(ready), "batch": lambda: np.stack(read(make_views()))}


def compare(case: Case, n: int, pool: str, n_batches: int, rounds: int, folder: Path) -> dict[str, float]:
    """Return the median seconds of the bare forms and of PatchReader, whose pool is off, warm or cold."""
    fovs = write_images(folder / "images.zarr", case)
    batches = [draw_boxes(case, n, seed) for seed in range(1, n_batches + 1)]
    held = POOL_BYTES if pool == "warm" else 0
    arrays, kept = open_arrays(fovs, held), PatchReader(fovs, cache_pool_bytes=held)
    bare = [bare_forms(arrays, boxes) for boxes in batches]

    def read() -> list[np.ndarray]:
        reader = PatchReader(fovs, cache_pool_bytes=POOL_BYTES) if pool == "cold" else kept
        return [reader.read(**boxes) for boxes in batches]

    def with_pool() -> list[object]:
        opened = open_arrays(fovs, POOL_BYTES)
        return [bare_forms(opened, boxes)["batch"]() for boxes in batches]

    forms = {name: partial(_all, [forms[name] for forms in bare]) for name in ("read", "batch")} | {"reader": read}
    if pool == "cold":
        forms["pool"] = with_pool
    np.testing.assert_array_equal(forms["batch"](), forms["reader"]())
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, form in forms.items():
            start = time.perf_counter()
            form()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(taken) for name, taken in seconds.items()}


def _all(forms: list[Callable[[], object]]) -> list[object]:
    return [form() for form in forms]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="16 boxes and 3 rounds instead of 128 and 15")
    quick = parser.parse_args().quick
    n, rounds = (16, 3) if quick else (128, 15)
    print(f"{n} boxes, median of {rounds} rounds\n")
    columns = f"{'read':>9} {'batch':>9} {'PatchReader':>12} {'/ read':>7} {'/ batch':>8} {'patches/s':>10} {'pool':>6}"
    print(f"{'case':<34} {'batches, pool':>13} {columns}")
    for case, pool, n_batches in [*product(CASES, ("off", "warm"), (1,)), *product(CASES[:2], ("cold",), N_COLD)]:
        with tempfile.TemporaryDirectory() as folder:
            took = compare(case, n, pool, n_batches, rounds, Path(folder))
        read, batch, reader = took["read"], took["batch"], took["reader"]
        per_second, bound = n_batches * n / reader, f"{took['pool'] / batch:>6.2f}" if "pool" in took else ""
        print(
            f"{case.name:<34} {n_batches:>8} {pool:>4} {read * 1e3:>6.1f} ms {batch * 1e3:>6.1f} ms"
            f" {reader * 1e3:>9.1f} ms {reader / read:>7.2f} {reader / batch:>8.2f} {per_second:>10,.0f} {bound}"
        )


if __name__ == "__main__":
    main()
