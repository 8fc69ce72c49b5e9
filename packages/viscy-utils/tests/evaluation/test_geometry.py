"""Figures without labels, against closed forms and loops over pairs."""

from __future__ import annotations

import numpy as np
import pytest

from viscy_utils.evaluation.geometry import alignment, effective_rank, spread, uniformity


def test_effective_rank_of_equal_directions_is_their_number():
    rows = np.zeros((6, 8))
    for axis in range(3):
        rows[2 * axis : 2 * axis + 2, axis] = [1, -1]
    assert effective_rank(rows + 5) == pytest.approx(3)
    assert effective_rank(rows * [1, 0, 0, 1, 1, 1, 1, 1]) == pytest.approx(1)
    assert effective_rank(np.full((6, 8), 0.3, np.float32)) == 1
    two = np.diag([3.0, 1.0])
    share = np.linalg.svd(two - two.mean(axis=0), compute_uv=False)
    assert effective_rank(two) == pytest.approx(1)
    assert share[1] < 1e-12


def test_spread_is_zero_at_a_point_and_one_around_the_origin():
    rows = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    assert spread(rows) == pytest.approx(1)
    assert spread(rows + np.array([100, 0])) == pytest.approx(1 / 10001)
    assert spread(np.ones((3, 2))) == spread(np.zeros((3, 2))) == 0


def test_alignment_and_uniformity_are_those_of_loops_over_pairs():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 12, 5))
    unit, other = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second))
    assert alignment(first, second) == pytest.approx(
        np.mean([np.sum((a - b) ** 2) for a, b in zip(unit, other, strict=True)])
    )
    pairs = [np.exp(-2 * np.sum((unit[a] - unit[b]) ** 2)) for a in range(12) for b in range(a)]
    assert uniformity(first) == pytest.approx(np.log(np.mean(pairs)))
    assert uniformity(np.ones((4, 3))) == pytest.approx(0)
    assert alignment(first, 3 * first) == pytest.approx(0)
