"""Smoothness in time: what it is for constructed embeddings."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viscy_utils.evaluation.smoothness import (
    compute_embeddings_smoothness,
    compute_piece_wise_distance,
    find_distribution_peak,
    smoothness_by_time,
    temporal_smoothness,
)


def _tracks(n_tracks=60, n_frames=10, n_fovs=6, dim=8, seed=0):
    """Random features that are nearly constant within a track."""
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(n_tracks), n_frames)
    fov = track % n_fovs
    features = rng.normal(size=(n_tracks, dim))[track] + 0.01 * rng.normal(size=(len(track), dim))
    return rng, track, fov, features.astype(np.float32)


def test_smoothness_of_random_walks_and_of_noise():
    rng, track, _, features = _tracks()
    t = np.tile(np.arange(10), 60)
    assert temporal_smoothness(features, track, t) < 0.05
    noise = rng.normal(size=features.shape)
    assert temporal_smoothness(noise, track, t) == pytest.approx(1, abs=0.1)


def test_a_gap_is_no_step():
    track, t = np.array([0, 0, 0, 1]), np.array([0, 1, 9, 0])
    features = np.array([[1.0, 0.0], [1.0, 0.1], [-5.0, 3.0], [0.0, -4.0]])
    # Only the step 0 -> 1 counts, not 1 -> 9.
    centred = features - features.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    pairs = [1 - unit[i] @ unit[3] for i in range(3)]
    expected = (1 - unit[0] @ unit[1]) / np.mean(pairs)
    assert temporal_smoothness(features, track, t, n_random=200_000) == pytest.approx(expected, rel=0.02)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_smoothness_does_not_depend_on_the_order_of_rows(seed):
    rng, track, _, features = _tracks(n_tracks=10, n_frames=5, seed=seed)
    t = np.tile(np.arange(5), 10)
    shuffled = rng.permutation(len(t))
    straight = temporal_smoothness(features, track, t, n_random=200_000)
    assert temporal_smoothness(features[shuffled], track[shuffled], t[shuffled], n_random=200_000) == pytest.approx(
        straight, rel=0.05, abs=1e-4
    )


def test_smoothness_needs_adjacent_frames():
    features = np.eye(3)
    assert np.isnan(temporal_smoothness(features, np.arange(3), np.arange(3)))
    assert np.isnan(temporal_smoothness(features, np.zeros(3), np.arange(3)))


@pytest.fixture
def embeddings(signed):
    """Six tracks of ten frames, as in the reference numbers."""
    base = np.repeat(signed((6, 8), "sm_base"), 10, axis=0)
    steps = 0.15 * signed((6, 10, 8), "sm_step").cumsum(axis=1).reshape(60, 8)
    obs = pd.DataFrame({"fov_name": "A/1/0", "track_id": np.repeat(np.arange(6), 10), "t": np.tile(np.arange(10), 6)})
    return anndata.AnnData(base + steps, obs=obs.set_index(obs.index.astype(str)))


def test_steps_are_those_of_the_reference_and_random_pairs_of_different_tracks(embeddings, golden):
    file = np.load(golden / "evaluation.npz")
    expected = dict(zip(file["smooth_keys"], file["smooth_cosine"], strict=True))
    stats, distributions, per_track = compute_embeddings_smoothness(embeddings)
    assert set(stats) == set(expected)
    for name in ("mean", "std", "median", "peak"):
        assert stats[f"adjacent_frame_{name}"] == pytest.approx(expected[f"adjacent_frame_{name}"], rel=1e-4)
    scaled = (embeddings.X - embeddings.X.mean(axis=0)) / embeddings.X.std(axis=0)
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    track = embeddings.obs["track_id"].to_numpy()
    unrelated = (1 - unit @ unit.T)[track[:, None] != track]
    for name, value in (("mean", unrelated.mean()), ("std", unrelated.std()), ("median", np.median(unrelated))):
        assert stats[f"random_frame_{name}"] == pytest.approx(value, rel=0.03)
    assert stats["dynamic_range"] == stats["random_frame_peak"] - stats["adjacent_frame_peak"]
    assert [len(track) for track in per_track] == [9] * 6
    assert np.concatenate(per_track) == pytest.approx(distributions["adjacent_frame"])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neither_order_of_rows_nor_gaps_make_steps(embeddings, metric):
    straight = compute_embeddings_smoothness(embeddings, metric)[0]
    shuffled = embeddings[np.random.default_rng(0).permutation(60)]
    again = compute_embeddings_smoothness(shuffled, metric)[0]
    assert again["adjacent_frame_mean"] == pytest.approx(straight["adjacent_frame_mean"])
    gaps = embeddings[embeddings.obs["t"] % 2 == 0]
    with pytest.raises(ValueError, match="two adjacent frames"):
        compute_embeddings_smoothness(gaps, metric)


def test_fovs_of_equal_name_in_two_experiments_are_no_one_track(embeddings):
    odd = embeddings.obs["t"].to_numpy() % 2
    embeddings.obs["experiment"] = np.array(["one", "two"])[odd]
    with pytest.raises(ValueError, match="two adjacent frames"):  # 0, 2, 4 in one and 1, 3, 5 in the other
        compute_embeddings_smoothness(embeddings)


def test_piecewise_distances_follow_time_and_not_the_order_of_the_table():
    table = pd.DataFrame({"fov_name": "A", "track_id": [1, 1, 1, 1, 2], "t": [2, 0, 9, 1, 0]}, index=[9, 3, 5, 1, 0])
    matrix = np.arange(25.0).reshape(5, 5)
    distances, ranks = compute_piece_wise_distance(table, matrix, matrix / 10)
    assert distances == [[matrix[1, 3], matrix[3, 0]], []]  # 0 -> 1 -> 2; 2 -> 9 is no step
    assert ranks == [[matrix[1, 3] / 10, matrix[3, 0] / 10], []]


def test_peaks_are_those_of_the_reference(signed, golden):
    expected = np.load(golden / "evaluation.npz")
    sample = signed((12, 6), "clu_f")
    assert find_distribution_peak(sample, "histogram") == pytest.approx(expected["peak_hist"], abs=1e-5)
    assert find_distribution_peak(sample) == pytest.approx(expected["peak_kde"], abs=1e-3)
    assert find_distribution_peak(np.full(5, 2.0)) == 2.0
    with pytest.raises(ValueError, match="mean"):
        find_distribution_peak(sample, "mean")
    with pytest.raises(ValueError, match="finite"):
        find_distribution_peak(np.array([np.nan]))


def test_smoothness_by_time_is_that_of_the_steps_and_pairs_of_each_frame():
    rng = np.random.default_rng(0)
    tracks, t = np.repeat(np.arange(40), 6), np.tile(np.arange(6), 40)
    features = rng.normal(size=(40, 3))[tracks] + rng.normal(size=(240, 3)) * np.where(t < 3, 0.01, 1)[:, None]
    table = smoothness_by_time(features, tracks, t, metric="euclidean")
    assert table.index.tolist() == [0, 1, 2, 3, 4]
    assert (table["n_steps"] == 40).all()
    for frame in table.index:
        steps = np.linalg.norm(features[t == frame + 1] - features[t == frame], axis=1)
        own = features[t == frame]
        apart = np.linalg.norm(own[:, None] - own, axis=2)[np.triu_indices(40, 1)]
        assert table["smoothness"][frame] == pytest.approx(steps.mean() / apart.mean(), rel=0.05)
    assert table["dynamic_range"][0] > table["dynamic_range"][4] + 0.5
    assert np.isnan(smoothness_by_time(features[:6], tracks[:6], t[:6])["smoothness"]).all()
