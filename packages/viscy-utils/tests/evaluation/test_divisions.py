"""Divisions: found in tables of tracks, and told from matched controls where the features show them."""

from __future__ import annotations

import numpy as np
import pytest

from viscy_utils.evaluation.divisions import dividing_cells, division_detection


def _tracks(n_mothers=60, n_others=90, n_frames=8, seed=0):
    """Mothers that divide after 4 frames, and cells that do not, in 4 FOVs; rows in random order."""
    rows, track = [], 0
    for mother in range(n_mothers):
        rows += [(track, -1, t, mother % 4, track) for t in range(4)]
        for daughter in (1, 2):
            rows += [(track + daughter, track, t, mother % 4, track) for t in range(4, n_frames)]
        track += 3
    for other in range(n_others):
        rows += [(track, -1, t, other % 4, track) for t in range(n_frames)]
        track += 1
    rng = np.random.default_rng(seed)
    return np.array(rows)[rng.permutation(len(rows))].T, rng


def test_mothers_and_daughters_are_those_of_the_table():
    tracks = np.array([1, 1, 2, 2, 3, 5, 6, 7, 7, 8])
    parents = np.array([-1, -1, 1, 1, 1, 4, -1, 6, 6, 6])
    t = np.array([0, 1, 2, 3, 2, 9, 0, 1, 2, 4])
    mothers, daughters = dividing_cells(tracks, parents, t)
    assert mothers.tolist() == [1, 1]  # 5 has no mother here, 6 has one daughter in time
    assert daughters.tolist() == [2, 4]


def test_rounding_before_a_division_is_told_and_noise_is_not():
    (tracks, parents, t, fovs, lineages), rng = _tracks()
    features = rng.normal(size=(len(tracks), 6))
    columns = (tracks, parents, t, fovs, lineages)
    noise = division_detection(features, *columns)
    assert noise.probe.auroc.low <= 0.5 <= noise.probe.auroc.high
    assert noise.step.low <= 0.5 <= noise.step.high
    before = np.isin(tracks, parents[parents >= 0]) & (t >= 2)
    rounded = division_detection(features + 4.0 * before[:, None], *columns)
    assert rounded.probe.auroc.value > 0.95
    assert rounded.step.value > 0.95
    assert rounded.probe.auroc.note == "120 cells before divisions, folds over lineages"
    assert rounded.probe.auroc.n_cells == 2 * 120  # two frames of each mother, and as many controls
    assert division_detection(features, *columns) == noise


def test_time_does_not_tell_divisions():
    """All mothers divide in one frame, and features are the time: controls of the same frame are equal."""
    (tracks, parents, t, fovs, lineages), rng = _tracks()
    features = t[:, None] * 10.0 + 0.1 * rng.normal(size=(len(t), 3))
    found = division_detection(features, tracks, parents, t, fovs, lineages)
    assert found.probe.auroc.value == pytest.approx(0.5, abs=0.15)
    assert found.step.value == pytest.approx(0.5, abs=0.15)


def test_few_divisions_are_said():
    (tracks, parents, t, fovs, lineages), rng = _tracks(n_mothers=2)
    found = division_detection(rng.normal(size=(len(t), 3)), tracks, parents, t, fovs, lineages)
    assert "4 cells before a division" in found.step.note
    none = division_detection(np.ones((len(t), 3)), tracks, np.full(len(t), -1), t, fovs, lineages)
    assert np.isnan(none.probe.auroc.value)
