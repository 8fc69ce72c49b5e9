"""Maximum mean discrepancy: against double loops, and calibrated where rows depend on each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from viscy_utils.evaluation.mmd import (
    compute_mmd_unbiased,
    gaussian_rbf_kernel,
    median_heuristic,
    mmd_permutation_test,
)


def by_loops(x, y, bandwidth):
    def k(a, b):
        return np.exp(-np.sum((a - b) ** 2) / (2 * bandwidth**2))

    m, n = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    within_y = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within_x + within_y - 2 * sum(k(a, b) for a in x for b in y) / (m * n)


@given(st.integers(0, 1000), st.integers(2, 7), st.integers(2, 7), st.floats(0.3, 3))
@settings(max_examples=30, deadline=None)
def test_the_estimate_is_that_of_its_definition(seed, m, n, bandwidth):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(m, 3)), rng.normal(size=(n, 3)) + 1
    assert compute_mmd_unbiased(x, y, bandwidth) == pytest.approx(by_loops(x, y, bandwidth), abs=1e-10)
    own = median_heuristic(x, y)
    assert own == pytest.approx(np.median(pdist(np.concatenate([x, y]))))
    assert compute_mmd_unbiased(x, y) == pytest.approx(by_loops(x, y, own), abs=1e-10)
    assert gaussian_rbf_kernel(x, y, 2.0)[0, 0] == pytest.approx(np.exp(-np.sum((x[0] - y[0]) ** 2) / 8))


def test_permutations_are_relabelled_estimates():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2)), rng.normal(size=(2, 2)) + 3
    found, p, null = mmd_permutation_test(x, y, 500, bandwidth=1.0)
    assert found == pytest.approx(by_loops(x, y, 1.0))
    rows = np.concatenate([x, y])
    splits = {by_loops(rows[[0, k]], np.delete(rows, [0, k], axis=0), 1.0) for k in (1, 2, 3)}
    assert all(min(abs(value - split) for split in splits) < 1e-10 for value in null)
    assert p == pytest.approx(1 / 3, abs=0.06)  # one of three ways to divide four rows, and the largest


def test_different_distributions_are_told_and_equal_ones_are_not():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 60, 4))
    assert mmd_permutation_test(x, y + 1, 200)[1] == 1 / 201
    values = [mmd_permutation_test(*rng.normal(size=(2, 15, 2)), 99)[1] for _ in range(60)]
    assert 0.35 < np.mean(values) < 0.65
    assert np.mean(np.array(values) <= 0.1) < 0.25


def test_rows_of_one_cell_are_permuted_together():
    """Twenty frames of ten cells a side: single rows as units find a difference between equal distributions."""
    rng = np.random.default_rng(0)
    by_rows, by_units = [], []
    units = np.repeat(np.arange(20), 20)
    for _ in range(20):
        cells = np.repeat(rng.normal(size=(20, 3)), 20, axis=0) + 0.05 * rng.normal(size=(400, 3))
        by_rows.append(mmd_permutation_test(cells[:200], cells[200:], 99)[1])
        by_units.append(mmd_permutation_test(cells[:200], cells[200:], 99, units=units)[1])
    assert np.mean(np.array(by_rows) <= 0.05) > 0.8
    assert np.mean(np.array(by_units) <= 0.05) < 0.25


def test_what_cannot_be_tested_is_refused():
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match="two rows on each side, found 1 and 3"):
        compute_mmd_unbiased(x[:1], x)
    with pytest.raises(ValueError, match="on both sides"):
        mmd_permutation_test(x, x, units=np.array([0, 1, 2, 2, 3, 4]))
    with pytest.raises(ValueError, match="30000 rows need too much memory"):
        compute_mmd_unbiased(np.zeros((15_000, 1)), np.zeros((15_000, 1)))
    assert median_heuristic(x, x) == 1.0
    assert compute_mmd_unbiased(x, x) == 0
