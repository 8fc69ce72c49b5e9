"""A patch store beside reading whole-plane chunks, and beside copying the same bytes from memory, in one run.

``python benchmarks/patch_store.py [--quick]``

Planes of 2048 x 2048 pixels, each one chunk, and random cells, as a sampler draws them. The pool of decoded chunks
holds a quarter of the planes, as of a recording that is larger than memory. Two at a time take turns, each as
often the first, and medians are compared. The page cache is warm: it is the copying that is measured, not the disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from viscy_data.patch_store import CellBoxes, PatchStorePlan, StoredPatches, write_patch_store
from viscy_data.patches import PatchReader
from viscy_data.stores import FovInfo, PlateWriter, read_plate

EXTENT, SIZE, N_CHANNELS = 2048, 96, 2


def write_planes(path: Path, n_fovs: int, n_frames: int, dtype: str) -> tuple[FovInfo, ...]:
    """Write counts with photon noise, which compress about as microscope images do."""
    rng = np.random.default_rng(0)
    with PlateWriter(path, ["Phase", "GFP"], chunks=(1, 1, 1, EXTENT, EXTENT)) as plate:
        for fov in range(n_fovs):
            array = plate.create(f"A/1/{fov}", (n_frames, N_CHANNELS, 1, EXTENT, EXTENT), dtype)
            brightness = rng.gamma(4, 100, (N_CHANNELS, 1, EXTENT, EXTENT))
            for frame in range(n_frames):
                array[frame] = rng.poisson(brightness).astype(dtype)
    return tuple(read_plate(path))


def draw_cells(fovs: tuple[FovInfo, ...], n_cells: int) -> CellBoxes:
    rng = np.random.default_rng(1)
    columns = [rng.integers(0, stop, n_cells) for stop in (len(fovs), fovs[0].shape[0], EXTENT, EXTENT)]
    channels = np.tile(np.arange(N_CHANNELS), (len(fovs), 1))
    places = np.stack(columns, axis=1).astype(np.int32)
    return CellBoxes.union([CellBoxes(fovs, channels, places, slice(0, 1), (SIZE, SIZE))])


def forms(boxes: CellBoxes, path: Path, pool: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return the three ways to a batch, by rows of cells."""
    reader = PatchReader(boxes.fovs, cache_pool_bytes=pool)
    stored = StoredPatches(path, boxes, reader)
    memory = np.concatenate([stored.read(rows) for rows in np.array_split(np.arange(len(boxes.places)), 16)])
    y, x = boxes.starts(boxes.yx_size).T

    def from_planes(rows: np.ndarray) -> np.ndarray:
        fov, t = boxes.places[rows, :2].T
        return reader.read(fov, t, boxes.channels[fov], np.zeros(len(rows)), y[rows], x[rows], boxes.size[1:])

    def from_memory(rows: np.ndarray) -> np.ndarray:
        batch = np.empty((len(rows), *memory.shape[1:]), np.float32)
        for target, row in zip(batch, rows.tolist(), strict=True):
            target[...] = memory[row]
        return batch

    return {"planes": from_planes, "store": stored.read, "memory": from_memory}


def compare(ways: dict[str, Callable], n_cells: int, batch_size: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of each, over batches of the same random cells."""
    rng = np.random.default_rng(2)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        rows = rng.permutation(n_cells)[:batch_size]
        batches = []
        names = list(ways)
        for name in names[number % 2 :] + names[: number % 2]:
            start = time.perf_counter()
            batches.append(ways[name](rows))
            seconds[name].append(time.perf_counter() - start)
        for other in batches[1:]:
            np.testing.assert_array_equal(batches[0], other)
        if number == 0:  # stores were opened, files mapped
            seconds = {name: [] for name in ways}
    return {name: median(taken) for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="batches of 16 and 3 rounds instead of 128 and 5")
    quick = parser.parse_args().quick
    batch_size, rounds, n_cells = (16, 3, 256) if quick else (128, 5, 2048)
    n_fovs, n_frames = (2, 4) if quick else (4, 6)
    for dtype in ("uint16", "float32"):
        with tempfile.TemporaryDirectory() as folder:
            boxes = draw_cells(write_planes(Path(folder) / "plate.zarr", n_fovs, n_frames, dtype), n_cells)
            plan = PatchStorePlan.of(Path(folder) / "patches.zarr", boxes)
            start = time.perf_counter()
            path = write_patch_store(plan)
            wrote = time.perf_counter() - start
            pool = n_fovs * n_frames * N_CHANNELS * EXTENT**2 * np.dtype(dtype).itemsize // 4
            ways = forms(boxes, path, pool)
            planes = compare({name: ways[name] for name in ("planes", "store")}, n_cells, batch_size, rounds)
            # Decoding beside them would leave neither of these two its memory and processors.
            copies = compare({name: ways[name] for name in ("store", "memory")}, n_cells, batch_size, 10 * rounds)
        print(f"{dtype}, {batch_size} cells of {N_CHANNELS} x 1 x {SIZE} x {SIZE}, median of {rounds} rounds")
        print(f"  whole planes {planes['planes'] * 1e3:.0f} ms, {planes['planes'] / planes['store']:.0f}x the store")
        store, memory = copies["store"], copies["memory"]
        print(f"  store {store * 1e3:.2f} ms, memory {memory * 1e3:.2f} ms: {memory / store:.0%} of its speed")
        print(f"  written: {n_cells / wrote:,.0f} cells/s, {plan.record.n_bytes / wrote / 1e6:.0f} MB/s")


if __name__ == "__main__":
    main()
