"""The constants of docs/scaling.md: bytes and seconds per cell of sampler, lookup of positives and index, by size.

    python benchmarks/scaling.py [--rows 1e8] [--ranks 256] [--tables 1e6]

Sampler and positives are measured on synthetic columns, which need no files: about 20 bytes per row while they are
sorted. The index is measured on written tables. 256 ranks are 256 calls, since batch ``number`` belongs to rank
``number % ranks`` and is made without the others: each costs the same, and no anchor comes twice in a round.
"""

from __future__ import annotations

import argparse
import gc
import logging
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynaclr.dataset import MultiExperimentTripletDataset
from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from dynaclr.lineage import LineageForest
from dynaclr.positives import PositiveLookup
from viscy_data.sampler import FlexibleBatchSampler
from viscy_data.synthetic.benchmark_tables import write_track_tables

BATCH, TRACK, FRAMES, OFFSETS = 512, 20, 100, 7
PATCH = slice(0, 1), (32, 32)


def timed(make: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    made = make()
    return made, time.perf_counter() - start


def report(stage: str, value: float, unit: str) -> None:
    print(f"{stage:<62}{value:>12.4g} {unit}", flush=True)


def resident_bytes() -> tuple[int, int]:
    """Memory that this process has of the system, and had at most (Linux); of few rows it is that of libraries."""
    lines = (line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    status = {name: value.split() for name, value in lines}
    return int(status["VmRSS"][0]) * 1024, int(status["VmHWM"][0]) * 1024


def sampler(n_rows: int, n_ranks: int) -> None:
    """Measure construction beside one sort of the same keys, a batch of all axes, and the batches of many ranks."""
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, n, n_rows, dtype=np.int8) for n in (4, 2, 48)]
    key = codes[0].astype(np.uint16)
    for own, n in ((codes[1], 2), (codes[2], 48)):
        key *= np.uint16(n)
        key += own.astype(np.uint16)
    sorting = timed(partial(np.argsort, key, kind="stable"))[1]
    del key
    labels = [pd.Categorical.from_codes(own, list(names)) for own, names in zip(codes[:2], ("abcd", "iu"), strict=True)]
    table = pd.DataFrame(
        {"experiment": labels[0], "condition": labels[1], "hours_post_infection": codes[2]}, copy=False
    )
    options = {"leaky": 0.1, "temporal_enrichment": True, "num_replicas": n_ranks}
    made, seconds = timed(partial(FlexibleBatchSampler, table, BATCH, **options))
    report("sampler, all axes: construction", seconds, "s")
    report("  beside one argsort of the same keys", seconds / sorting, "x")
    report("  first batch", timed(partial(made.batch, 0))[1] * 1e3, "ms")
    times = [timed(partial(made.batch, int(number)))[1] for number in rng.integers(made.n_batches, size=500)]
    report("  batch of 512", statistics.median(times) * 1e6, "us")
    del made, table, labels
    gc.collect()
    plain = pd.DataFrame({"experiment": np.zeros(n_rows, np.int8), "condition": np.zeros(n_rows, np.int8)}, copy=False)
    whole = FlexibleBatchSampler(plain, BATCH, num_replicas=n_ranks)
    report("  bytes that its pickle sends per anchor", len(pickle.dumps(whole, protocol=5)) / n_rows, "bytes")
    taken, times = [], []
    for rank in range(n_ranks):
        batch, seconds = timed(lambda rank=rank: whole.batch(rank, epoch=1))
        taken.append(batch)
        times.append(seconds)
    distinct = len(np.unique(np.concatenate(taken)))
    report(f"  first batch of each of {n_ranks} ranks, median", statistics.median(times) * 1e6, "us")
    report("    the slowest rank", max(times) * 1e6, "us")
    report("    anchors that come twice in the round", sum(map(len, taken)) - distinct, "")


def positives(n_rows: int) -> None:
    """Tracks of 20 frames, of which each pair is the daughters of the one before."""
    n_tracks = n_rows // TRACK
    parent = np.arange(n_tracks, dtype=np.int32) // 3 - 1
    parent[np.arange(n_tracks) % 3 == 0] = -1
    forest, seconds = timed(lambda: LineageForest(parent))
    report("lineage forest, per track", seconds / n_tracks * 1e9, "ns")
    track = np.repeat(np.arange(n_tracks, dtype=np.int32), TRACK)
    start = np.random.default_rng(0).integers(0, FRAMES - TRACK, n_tracks, dtype=np.int16)
    t = np.tile(np.arange(TRACK, dtype=np.int16), n_tracks)
    t += np.repeat(start, TRACK)
    lookup, seconds = timed(lambda: PositiveLookup(t, track, forest))
    report("positives: construction, per observation", seconds / n_rows * 1e9, "ns")
    held = sum(array.nbytes for array in lookup.order.arrays().values()) / n_rows
    report("  bytes held per observation, beside the table", held, "bytes")
    times = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rows = rng.integers(0, n_tracks, BATCH) * TRACK + rng.integers(0, TRACK // 2, BATCH)
        times.append(timed(lambda rows=rows, rng=rng: lookup.draw(rows, 1, OFFSETS, rng))[1])
    report(f"  batch of 512, {OFFSETS} offsets", statistics.median(times) * 1e3, "ms")


def index(n_rows: int) -> None:
    """Tables of at most 25 000 observations: built, saved, mapped, and what a worker is sent."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        per_fov = min(max(n_rows // 400, 100), 25_000)
        n_fovs = -(-n_rows // per_fov)
        write_track_tables(n_rows, root, observations_per_fov=per_fov)
        registry, seconds = timed(lambda: ExperimentRegistry.from_yaml(root / "experiments.yml"))
        report("experiments: opening, per FOV", seconds / n_fovs * 1e3, "ms")
        before = resident_bytes()[0]
        built, seconds = timed(lambda: MultiExperimentIndex(registry, *PATCH))
        report("index: building, per observation", seconds / n_rows * 1e6, "us")
        for what, n_bytes in zip(("held", "at the peak"), resident_bytes(), strict=True):
            report(f"  bytes per observation {what}, as the system counts", (n_bytes - before) / n_rows, "bytes")
        path = root / "index.arrow"
        seconds = timed(partial(built.save, path))[1]
        report("  saving as .arrow, per observation", seconds / n_rows * 1e9, "ns")
        report("  bytes on disk per observation", path.stat().st_size / n_rows, "bytes")
        del built
        mapped, seconds = timed(lambda: MultiExperimentIndex.load(path, registry, *PATCH))
        report("  opening the .arrow, per observation", seconds / n_rows * 1e9, "ns")
        dataset = MultiExperimentTripletDataset(mapped, cache_pool_bytes=0)
        report("  bytes that a worker is sent, per FOV", len(pickle.dumps(dataset, protocol=5)) / n_fovs, "bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10^6 rows of columns and 10^5 of tables")
    parser.add_argument("--rows", type=float, default=1e8, help="rows of synthetic columns")
    parser.add_argument("--tables", type=float, default=1e6, help="rows of written tables")
    parser.add_argument("--ranks", type=int, default=256)
    parser.add_argument("--only", choices=("sampler", "positives", "index"), help="one part")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    rows, tables = (1e6, 1e5) if arguments.quick else (arguments.rows, arguments.tables)
    parts = {
        "sampler": lambda: sampler(int(rows), arguments.ranks),
        "positives": lambda: positives(int(rows)),
        "index": lambda: index(int(tables)),
    }
    print(f"{rows:.3g} rows of columns, {tables:.3g} of tables")
    for name, part in parts.items():
        if arguments.only in (None, name):
            part()
            gc.collect()


if __name__ == "__main__":
    main()
