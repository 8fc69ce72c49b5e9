"""Smoothness in time: what it is for constructed embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viscy_utils.evaluation.smoothness import temporal_smoothness


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
