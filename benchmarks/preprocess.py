"""What `dynaclr preprocess` costs beside reading the pixels of the same store, and the memory that it takes.

    python benchmarks/preprocess.py [--quick]

Movies of two channels in chunks of one slice, and in chunks of all channels and slices of a frame. Reading is bare
tensorstore, a frame at a time, by as many threads; both take turns, and medians of wall and CPU seconds are compared. A
warm page cache is assumed: from a disk, reading takes longer and the rest does not. Memory is the highest resident size
above the one before; that it does not grow with the length of the movies is what a store larger than memory needs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

from viscy_data.stores import PlateWriter, open_array, read_plate
from viscy_utils.statistics.metadata import generate_normalization_metadata

N_THREADS = 2
SIZE = (16, 1024, 1024)
CHUNKS = {"a slice": (1, 1, 1, 1024, 1024), "a frame, all channels": (1, 2, 16, 256, 256)}


def write(path: Path, n_frames: int, chunks: tuple[int, ...]) -> None:
    """Write two movies of counts with photon noise."""
    rng = np.random.default_rng(0)
    frame = rng.poisson(rng.gamma(4, 100, (1, 2, *SIZE))).astype(np.uint16)
    with PlateWriter(path, ["Phase", "GFP"], version="0.4", chunks=chunks) as plate:
        for fov in range(2):
            plate.write(f"A/1/{fov}", np.broadcast_to(frame, (n_frames, *frame.shape[1:])))


def read(path: Path) -> None:
    """Read all pixels, and do nothing with them."""
    fovs = read_plate(path)
    arrays = [open_array(fov) for fov in fovs]
    frames = [array[t] for fov, array in zip(fovs, arrays, strict=True) for t in range(fov.shape[0])]
    with ThreadPoolExecutor(N_THREADS) as pool:
        for _ in pool.map(lambda frame: frame.read().result().size, frames):
            pass


def preprocess(path: Path) -> None:
    generate_normalization_metadata(path, N_THREADS)


def resident(which: str) -> float:
    """Return a line of Linux's account of this process, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1e3


def measure(path: Path, n_rounds: int) -> tuple[dict[str, float], dict[str, float], float]:
    """Return the median wall and CPU seconds of both, and the memory of preprocessing in MB."""
    forms: dict[str, Callable[[Path], None]] = {"read": read, "preprocess": preprocess}
    wall: dict[str, list[float]] = {name: [] for name in forms}
    cpu: dict[str, list[float]] = {name: [] for name in forms}
    peak = 0.0
    for _ in range(n_rounds):
        for name, form in forms.items():
            Path("/proc/self/clear_refs").write_text("5")  # begin the account of the peak anew
            before, start, start_cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
            form(path)
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
            if name == "preprocess":
                peak = max(peak, resident("VmHWM") - before)
    return {name: median(s) for name, s in wall.items()}, {name: median(s) for name, s in cpu.items()}, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="movies of 1 and 2 frames, one round")
    quick = parser.parse_args().quick
    print(f"{'chunk':<24}{'pixels':>9}{'read':>9}{'preprocess':>12}{'speed':>7}{'CPU':>7}{'memory':>9}")
    for name, chunks in CHUNKS.items():
        for n_frames in (1, 2) if quick else (4, 16):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "movies.zarr")
                write(path, n_frames, chunks)
                wall, cpu, peak = measure(path, 1 if quick else 5)
            size = 2 * n_frames * 2 * int(np.prod(SIZE)) * 2 / 1e6
            ratios = f"{wall['read'] / wall['preprocess']:6.2f}x{cpu['read'] / cpu['preprocess']:6.2f}x"
            print(
                f"{name:<24}{size:>6.0f} MB{wall['read']:>7.2f} s{wall['preprocess']:>10.2f} s{ratios}{peak:>6.0f} MB"
            )


if __name__ == "__main__":
    main()
