"""Displacement of embeddings over time, against loops over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from viscy_utils.evaluation.distance import (
    calculate_cosine_similarity_cell,
    compute_track_displacement,
    mean_squared_displacement,
)
from viscy_utils.evaluation.pairs import later_pairs, unrelated_pairs


def dataset(features, fov, track, t, **columns):
    coords = {"fov_name": fov, "track_id": track, "t": t, **columns}
    return xr.Dataset(
        {"features": (("sample", "features"), features)}, {name: ("sample", values) for name, values in coords.items()}
    )


@pytest.fixture
def walk():
    """Two tracks with gaps, of the same id in two FOVs, in no order."""
    rng = np.random.default_rng(0)
    fov = np.array(["A/1/0"] * 5 + ["A/1/1"] * 4)
    t = np.array([0, 1, 2, 4, 7, 3, 4, 5, 6])
    order = rng.permutation(9)
    return dataset(rng.normal(size=(9, 3))[order], fov[order], np.zeros(9, int), t[order])


def by_loops(data, metric):
    """Distances of each pair of frames of a track once, by lag."""
    found = {}
    keys = [key for key in ("experiment", "fov_name", "track_id") if key in data.coords]
    names = [tuple(data[key].values[i] for key in keys) for i in range(data.sizes["sample"])]
    t, features = data["t"].values, data["features"].values
    for i in range(len(t)):
        for j in range(len(t)):
            if names[i] == names[j] and t[j] > t[i]:
                a, b = features[i], features[j]
                cosine = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                found.setdefault(int(t[j] - t[i]), []).append(cosine if metric == "cosine" else np.linalg.norm(a - b))
    return {lag: sorted(values) for lag, values in found.items()}


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_each_pair_of_frames_counts_once_by_the_time_between_them(walk, metric):
    found = compute_track_displacement(walk, metric)
    expected = by_loops(walk, metric)
    assert list(found) == sorted(expected)
    for lag, values in found.items():
        assert sorted(values) == pytest.approx(expected[lag])


def test_three_frames_have_two_steps_of_one_and_one_of_two():
    data = dataset(np.eye(3), np.array(["A/1/0"] * 3), np.zeros(3, int), np.array([2, 0, 1]))
    assert {lag: len(values) for lag, values in compute_track_displacement(data).items()} == {1: 2, 2: 1}


def test_fovs_of_equal_name_in_two_experiments_are_two(walk):
    again = xr.concat([walk.assign_coords(experiment=("sample", [name] * 9)) for name in ("one", "two")], "sample")
    found = compute_track_displacement(again)
    once = compute_track_displacement(walk)
    assert {lag: len(values) for lag, values in found.items()} == {lag: 2 * len(v) for lag, v in once.items()}


def test_mean_squared_displacement_is_the_mean_of_squares(walk):
    tracks = (walk["fov_name"].values == "A/1/1").astype(int)
    table = mean_squared_displacement(walk["features"].values, tracks, walk["t"].values)
    expected = by_loops(walk, "euclidean")
    assert table.index.tolist() == sorted(expected)
    for lag, row in table.iterrows():
        assert row["msd"] == pytest.approx(np.mean(np.square(expected[lag])))
        assert row["n_pairs"] == len(expected[lag])
    assert table.loc[1, "n_tracks"] == 2
    assert table.loc[7, "n_tracks"] == 1


def test_diffusion_grows_with_time_and_noise_does_not():
    rng = np.random.default_rng(0)
    tracks, t = np.repeat(np.arange(300), 9), np.tile(np.arange(9), 300)
    steps = rng.normal(size=(300, 9, 2))
    walk, noise = steps.cumsum(axis=1).reshape(-1, 2), steps.reshape(-1, 2)
    msd = mean_squared_displacement(walk, tracks, t)["msd"]
    assert msd.to_numpy() == pytest.approx(2.0 * msd.index.to_numpy(), rel=0.12)  # 2 dimensions of variance 1 per step
    assert mean_squared_displacement(noise, tracks, t, max_lag=3)["relative"].to_numpy() == pytest.approx(1, rel=0.05)


def test_a_cell_is_compared_with_its_first_frame_whatever_the_order_of_rows(walk):
    t, similarity = calculate_cosine_similarity_cell(walk, "/A/1/0/", 0)
    assert t.tolist() == [0, 1, 2, 4, 7]
    own = walk["fov_name"].values == "A/1/0"
    rows = walk["features"].values[own][np.argsort(walk["t"].values[own])]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert similarity == pytest.approx(np.clip(unit @ unit[0], -1, 1))
    with pytest.raises(ValueError, match="no track 5"):
        calculate_cosine_similarity_cell(walk, "A/1/0", 5)


@given(st.integers(0, 1000), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_later_pairs_are_those_of_a_loop(seed, lag):
    rng = np.random.default_rng(seed)
    cells = np.unique(rng.integers(0, 6, size=(20, 2)), axis=0)
    cells = cells[rng.permutation(len(cells))]
    tracks, t = cells[:, 0] * 10 - 7, cells[:, 1]
    found = set(zip(*(side.tolist() for side in later_pairs(tracks, t, lag)), strict=True))
    n = len(t)
    assert found == {(i, j) for i in range(n) for j in range(n) if tracks[i] == tracks[j] and t[j] - t[i] == lag}


def test_unrelated_pairs_are_of_two_tracks():
    tracks = np.repeat([0, 1, 2], [50, 1, 1])
    first, second = unrelated_pairs(tracks, np.random.default_rng(0), 1000)
    assert len(first)
    assert (tracks[first] != tracks[second]).all()
    assert len(unrelated_pairs(np.zeros(4), np.random.default_rng(0), 10)[0]) == 0
