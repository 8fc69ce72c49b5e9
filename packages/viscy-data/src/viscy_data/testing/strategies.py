"""hypothesis strategies for lineages and the tables that are built on them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from viscy_data.optional import from_extra

with from_extra("triplet"):
    import pandas as pd

__all__ = ["anchor_tables", "parent_arrays", "tracking_tables"]


@st.composite
def parent_arrays(draw: st.DrawFn, min_size: int = 1, max_size: int = 30, root_share: float = 0.3) -> np.ndarray:
    """Draw lineage forests: the parent of each track, int64, -1 for a root, without cycles.

    Parents may have higher numbers than their children, and any number of children.
    """
    n = draw(st.integers(min_size, max_size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parent = np.array([rng.integers(0, i) if i and rng.random() > root_share else -1 for i in range(n)], np.int64)
    number = rng.permutation(n) if draw(st.booleans()) else np.arange(n)
    shuffled = np.full(n, -1, np.int64)
    shuffled[number] = np.where(parent < 0, -1, number[parent])
    return shuffled


@st.composite
def tracking_tables(
    draw: st.DrawFn,
    max_tracks: int = 12,
    max_track_frames: int = 8,
    yx_shape: tuple[int, int] = (64, 64),
    gaps: bool = True,
) -> pd.DataFrame:
    """Draw tracking tables of one FOV: ``track_id, t, y, x, id, parent_track_id, parent_id``, -1 for none.

    Daughters begin in the frame after their mother's last; with ``gaps``, tracks miss frames in between. Rows may be in
    any order.
    """
    parent = draw(parent_arrays(max_size=max_tracks))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frames: dict[int, np.ndarray] = {}
    pending = list(range(len(parent)))
    while pending:
        track = pending.pop(0)
        if parent[track] >= 0 and parent[track] not in frames:
            pending.append(track)
            continue
        start = frames[parent[track]][-1] + 1 if parent[track] >= 0 else rng.integers(0, 6)
        t = start + np.arange(rng.integers(1, max_track_frames + 1))
        keep = rng.random(len(t)) > 0.2 * gaps
        keep[[0, -1]] = True
        frames[track] = t[keep]
    track = np.repeat(np.arange(len(parent)), [len(frames[number]) for number in range(len(parent))])
    table = pd.DataFrame({"track_id": track, "t": np.concatenate([frames[number] for number in range(len(parent))])})
    for axis, size in zip("yx", yx_shape, strict=True):
        table[axis] = rng.uniform(0, size - 1, len(table)).astype(np.float32)
    table["id"] = np.arange(len(table))
    table["parent_track_id"] = parent[track]
    table["parent_id"] = _previous_ids(table, parent)
    order = rng.permutation(len(table)) if draw(st.booleans()) else np.arange(len(table))
    return table.iloc[order].reset_index(drop=True)


def _previous_ids(table: pd.DataFrame, parent: np.ndarray) -> np.ndarray:
    """Return the id of the observation before each: of the same track, or the mother's last. Rows are sorted."""
    track, number = table["track_id"].to_numpy(), table["id"].to_numpy()
    begins = np.diff(track, prepend=-1) != 0
    last = number[np.diff(track, append=len(parent)) != 0]
    mother = parent[track]
    return np.where(begins, np.where(mother < 0, -1, last[mother]), number - 1)


@st.composite
def anchor_tables(
    draw: st.DrawFn,
    max_rows: int = 200,
    max_experiments: int = 4,
    conditions: tuple[str, ...] = ("uninfected", "infected", "mock"),
    max_frames: int = 12,
) -> pd.DataFrame:
    """Draw tables of anchors for samplers: ``experiment, condition, hours_post_infection, lineage``.

    Experiments differ in size, interval and first hour; not every one has every condition; rows are in any order and
    strings are plain or categorical.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, max_rows))
    n_experiments = draw(st.integers(1, max_experiments))
    share = rng.dirichlet(np.ones(n_experiments))
    experiment = rng.choice(n_experiments, n, p=share)
    present = rng.random((n_experiments, len(conditions))) < 0.7
    present[np.arange(n_experiments), rng.integers(0, len(conditions), n_experiments)] = True
    weight = present / present.sum(1, keepdims=True)
    condition = np.array([rng.choice(len(conditions), p=weight[number]) for number in experiment])
    interval = rng.choice([0.25, 0.5, 1.0], n_experiments)
    hours = rng.integers(0, 6, n_experiments)[experiment] + interval[experiment] * rng.integers(0, max_frames, n)
    table = pd.DataFrame(
        {
            "experiment": np.array([f"experiment_{number}" for number in range(n_experiments)])[experiment],
            "condition": np.array(conditions)[condition],
            "hours_post_infection": hours,
            "lineage": experiment * n + rng.integers(0, max(1, n // 5), n),
        }
    )
    return table.astype({"experiment": "category", "condition": "category"}) if draw(st.booleans()) else table
