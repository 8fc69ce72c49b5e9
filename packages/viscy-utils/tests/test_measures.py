"""Measures of embeddings: what they reach on constructed ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viscy_utils.evaluation.probe import experiment_separability, linear_probe
from viscy_utils.evaluation.smoothness import temporal_smoothness


def _tracks(n_tracks=60, n_frames=10, n_fovs=6, dim=8, seed=0):
    """Random features that are nearly constant within a track, and the groups they belong to."""
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(n_tracks), n_frames)
    fov = track % n_fovs
    features = rng.normal(size=(n_tracks, dim))[track] + 0.01 * rng.normal(size=(len(track), dim))
    return rng, track, fov, features.astype(np.float32)


def test_probe_of_labels_random_per_track_is_at_chance():
    rng, track, fov, features = _tracks(n_tracks=240)
    labels = rng.integers(2, size=240)[track]
    score = linear_probe(features, labels, fov, track)
    assert abs(score.value - 0.5) < 0.12
    assert score.low <= 0.5 <= score.high
    assert score.chance == 0.5


def test_probe_finds_a_linear_label_on_held_out_cells():
    rng, track, fov, features = _tracks()
    labels = rng.integers(2, size=60)[track]
    features[:, 0] += 6 * labels
    held_out = linear_probe(features, labels, fov, track, test=fov == 0)
    assert held_out.value > 0.95
    assert "other experiments" in held_out.note
    assert linear_probe(features, labels, fov, track).value > 0.95


def test_probe_without_two_classes_says_why():
    _, track, fov, features = _tracks()
    assert np.isnan(linear_probe(features, np.zeros(len(track)), fov, track).value)
    assert "single FOV" in linear_probe(features, fov == 0, fov, track).note
    assert "one side" in linear_probe(features, fov == 0, fov, track, test=fov == 0).note


def test_separability_tells_separate_from_mixed_experiments():
    _, track, fov, features = _tracks()
    experiment = fov % 3
    mixed = experiment_separability(features, experiment, fov, track)
    features[np.arange(len(track)), experiment] += 10
    separate = experiment_separability(features, experiment, fov, track)
    assert separate.value > 0.99
    assert abs(mixed.value - mixed.chance) < 0.2
    assert np.isnan(experiment_separability(features, np.zeros(len(track)), fov, track).value)


def test_interval_comes_from_whole_lineages():
    """A hundred copies of each cell must not make the interval narrower."""
    rng, track, fov, features = _tracks(n_tracks=40, n_frames=1)
    labels = rng.integers(2, size=40)
    features[:, 0] += 1.5 * labels
    few = linear_probe(features, labels, fov, track, test=fov < 3)
    copies = np.repeat(np.arange(40), 100)
    many = linear_probe(features[copies], labels[copies], fov[copies], track[copies], test=fov[copies] < 3)
    assert many.high - many.low > 0.7 * (few.high - few.low)


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
