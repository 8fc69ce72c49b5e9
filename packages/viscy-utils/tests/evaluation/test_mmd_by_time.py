"""Discrepancy of conditions by frame: that of the cells themselves, whole lineages permuted, experiments apart."""

from __future__ import annotations

import numpy as np
import pytest

from viscy_utils.evaluation.mmd import mmd_permutation_test
from viscy_utils.evaluation.mmd_by_time import mmd_by_time


def _cells(response=0.0, day=0.0, n_tracks=80, n_frames=12, seed=0):
    """Infected tracks move away from frame 6 on; each track has its own place."""
    rng = np.random.default_rng(seed)
    track, t = np.repeat(np.arange(n_tracks), n_frames), np.tile(np.arange(n_frames), n_tracks)
    infected, second = track % 2 == 1, track >= n_tracks // 2
    features = rng.normal(size=(n_tracks, 4))[track] + 0.1 * rng.normal(size=(len(track), 4))
    features[:, 0] += response * (infected & (t >= 6))
    features[:, 1] += day * second
    return features, np.where(infected, "virus", "mock"), np.where(second, "b", "a"), track, t


def test_rows_are_tests_of_the_cells_of_a_frame():
    features, labels, days, track, t = _cells(response=3.0)
    table = mmd_by_time(features, labels, days, track, t, n_times=4)
    assert table["t"].tolist() == [0, 3, 7, 11] * 2
    for row in table.itertuples():
        sides = [(days == row.experiment) & (t == row.t) & (labels == name) for name in ("mock", "virus")]
        units = np.concatenate([track[side] for side in sides])
        mmd2, p, null = mmd_permutation_test(*(features[side] for side in sides), 199, seed=0, units=units)
        assert (row.mmd2, row.p) == (pytest.approx(mmd2), p)
        assert row.null_95 == pytest.approx(np.quantile(null, 0.95))
        assert (row.n_cells, row.n_units) == (40, 40)
    late = table["t"] >= 6
    assert (table["q"][late] < 0.05).all()
    assert (table["q"][~late] > 0.05).all()


def test_what_experiments_differ_in_does_not_count():
    near, far = (mmd_by_time(*_cells(day=day)) for day in (0.0, 50.0))
    np.testing.assert_allclose(near["mmd2"], far["mmd2"], atol=1e-6)


def test_p_is_uniform_where_there_is_nothing_to_find():
    p = np.concatenate([mmd_by_time(*_cells(seed=seed), n_times=1, n_permutations=99)["p"] for seed in range(40)])
    assert 0.01 <= np.mean(p <= 0.1) <= 0.2


def test_lineages_of_both_labels_and_frames_of_few_are_left_out():
    features, labels, days, track, t = _cells()
    labels[(track == 1) & (t < 3)] = "mock"
    lineage = np.where(track == 1, 0, track)  # daughters, of two labels from frame 3 on
    counts = mmd_by_time(features, labels, days, lineage, t, n_times=12).query("experiment == 'a'")["n_units"]
    assert counts.tolist() == [39] * 3 + [38] * 9
    few = track < 9
    assert mmd_by_time(*(each[few] for each in (features, labels, days, track, t))).empty


def test_three_labels_are_each_compared_with_the_others():
    features, labels, days, track, t = _cells()
    labels = np.where(track % 3 == 0, "zika", labels)
    assert set(mmd_by_time(features, labels, days, track, t, n_times=1)["label"]) == {"mock", "virus", "zika"}
