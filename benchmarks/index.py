"""What an index and its dataset cost beside parsing the same tracking tables with pandas.

    python benchmarks/index.py [--quick]

Synthetic tables of at most 2500 observations per FOV in 4 experiments; best of several rounds taken in turn, so that a
busy machine slows all alike. Memory is what stays allocated, counted by tracemalloc. The limit is 2.5 times pandas and
200 bytes per observation.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from dynaclr.dataset import MultiExperimentTripletDataset
from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from viscy_data.synthetic.benchmark_tables import write_track_tables

PATCH = slice(0, 1), (32, 32)


def parse(root: Path) -> list[pd.DataFrame]:
    return [pd.read_csv(path) for path in sorted(root.glob("*/tracks/*/*/*/*.csv"))]


def build(root: Path) -> MultiExperimentTripletDataset:
    registry = ExperimentRegistry.from_yaml(root / "experiments.yml")
    return as_dataset(MultiExperimentIndex(registry, *PATCH))


def load(root: Path) -> MultiExperimentTripletDataset:
    registry = ExperimentRegistry.from_yaml(root / "experiments.yml")
    return as_dataset(MultiExperimentIndex.load(root / "index.parquet", registry, *PATCH))


def as_dataset(index: MultiExperimentIndex) -> MultiExperimentTripletDataset:
    _ = index.positives  # what the dataset draws from; derived on first use
    return MultiExperimentTripletDataset(index, cache_pool_bytes=0)


def best_times(root: Path, n_rounds: int) -> dict[str, tuple[float, float]]:
    """Best wall and CPU time of each form, in seconds."""
    forms: dict[str, Callable[[Path], object]] = {"pandas": parse, "build": build, "load": load}
    best = dict.fromkeys(forms, (float("inf"), float("inf")))
    for _ in range(n_rounds):
        for name, form in forms.items():
            wall, cpu = time.perf_counter(), time.process_time()
            form(root)
            took = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = tuple(map(min, best[name], took))
    return best


def bytes_kept(root: Path) -> tuple[float, float]:
    """Memory of index and dataset that stays, and at its peak."""
    tracemalloc.start()
    dataset = build(root)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del dataset
    return kept, peak


def measure(n_observations: int, n_rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_track_tables(n_observations, root, observations_per_fov=min(2500, n_observations // 32))
        build(root).index.save(root / "index.parquet")
        best = best_times(root, n_rounds)
        kept, peak = bytes_kept(root)
    (pandas_wall, pandas_cpu), (wall, cpu), (load_wall, _) = best["pandas"], best["build"], best["load"]
    ratios = f"{wall / pandas_wall:>6.2f} {cpu / pandas_cpu:>6.2f}"
    memory = f"{kept / n_observations:>7.0f} {peak / n_observations:>7.0f}"
    print(
        f"{n_observations:>9,} {pandas_wall:>8.3f} s {wall:>8.3f} s {ratios} {load_wall:>8.3f} s "
        f"{wall / load_wall:>6.1f} {memory}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the largest table and most rounds")
    parser.add_argument("--rows", type=float, nargs="+", help="sizes, instead of 10^4 to 10^6")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    heads = f"{'wall':>6} {'CPU':>6} {'load':>10} {'faster':>6} {'B/row':>7} {'peak':>7}"
    print(f"{'rows':>9} {'pandas':>10} {'build':>10} {heads}")
    for n_observations in map(int, arguments.rows or ([1e4, 1e5] if arguments.quick else [1e4, 1e5, 1e6])):
        measure(n_observations, n_rounds=2 if arguments.quick else 5)


if __name__ == "__main__":
    main()
