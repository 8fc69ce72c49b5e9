"""Measure FlexibleBatchSampler: construction, first batch, one batch of 128, and memory per anchor, for all axes.

The last rows limit lineages: of many, of which few meet in a batch; and of 128, of which each must come exactly once.

Run ``python benchmarks/sampler.py`` (1 M and 10 M anchors) or ``python benchmarks/sampler.py --quick`` (100 k).
"""

from __future__ import annotations

import argparse
import itertools
import pickle
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from viscy_data.sampler import FlexibleBatchSampler

BATCH_SIZE = 128
AXES = ("aware", "condition", "temporal", "leaky")


def make_anchors(n_anchors: int) -> pd.DataFrame:
    """Four experiments, two conditions, 48 time points."""
    rng = np.random.default_rng(0)

    def names(*values: str) -> pd.Categorical:
        return pd.Categorical.from_codes(rng.integers(0, len(values), n_anchors, dtype=np.int8), list(values))

    return pd.DataFrame(
        {
            "experiment": names("a", "b", "c", "d"),
            "condition": names("infected", "uninfected"),
            "hours_post_infection": rng.integers(0, 48, n_anchors) * 0.5,
            "many": rng.integers(0, n_anchors // 20, n_anchors, dtype=np.int32),
            "few": rng.integers(0, BATCH_SIZE, n_anchors, dtype=np.int32),
        }
    )


def combinations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and options of all combinations of axes, and of the limits of lineages."""
    for flags in itertools.product([False, True], repeat=len(AXES)):
        aware, condition, temporal, leaky = flags
        if leaky and not aware:
            continue
        options = {
            "experiment_aware": aware,
            "condition_balanced": condition,
            "temporal_enrichment": temporal,
            "leaky": 0.1 if leaky else 0.0,
        }
        yield " + ".join(name for name, flag in zip(AXES, flags, strict=True) if flag) or "plain", options
    for column in ("many", "few"):
        yield f"aware + condition + {column} lineages", {"lineage_column": column, "max_per_lineage": 1}


def measure(anchors: pd.DataFrame, options: dict[str, Any], n_batches: int) -> tuple[float, ...]:
    """Seconds to construct, seconds to the first batch, median seconds of a batch, bytes per anchor."""
    begin = time.perf_counter()
    sampler = FlexibleBatchSampler(anchors, BATCH_SIZE, **options)
    constructed = time.perf_counter()
    sampler.batch(0)
    first = time.perf_counter()
    times = []
    for number in np.random.default_rng(0).integers(sampler.n_batches, size=n_batches):
        start = time.perf_counter()
        sampler.batch(int(number))
        times.append(time.perf_counter() - start)
    n_bytes = len(pickle.dumps(sampler, protocol=5)) / len(anchors)
    return constructed - begin, first - constructed, statistics.median(times), n_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 k anchors only")
    parser.add_argument("--anchors", type=float, nargs="+", help="sizes, instead of 1 M and 10 M")
    parser.add_argument("--batches", type=int, default=500, help="batches per combination")
    arguments = parser.parse_args()
    print(f"{'anchors':>10}  {'axes':<34}{'construct':>11}{'first':>11}{'batch':>11}{'bytes/anchor':>14}")
    for n_anchors in map(int, arguments.anchors or ([1e5] if arguments.quick else [1e6, 1e7])):
        anchors = make_anchors(n_anchors)
        for axes, options in combinations():
            construct, first, batch, n_bytes = measure(anchors, options, arguments.batches)
            print(
                f"{n_anchors:>10}  {axes:<34}{construct * 1e3:>8.1f} ms{first * 1e3:>8.2f} ms{batch * 1e6:>8.1f} us"
                f"{n_bytes:>14.2f}"
            )


if __name__ == "__main__":
    main()
