from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynaclr.tau_sampling import sample_tau, sample_tau_batch, tau_weights

GOLDEN = json.loads((Path(__file__).parent / "golden" / "tau" / "sample_tau.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['tau_min']}-{case['tau_max']}-{case['decay_rate']}")
def test_probabilities_and_draws_are_the_golden_ones(case):
    limits = case["tau_min"], case["tau_max"]
    np.testing.assert_allclose(tau_weights(*limits, case["decay_rate"]), case["probabilities"], rtol=1e-12)
    rng = np.random.default_rng(0)
    draws = [sample_tau(*limits, rng, case["decay_rate"]) for _ in range(20)]
    assert draws == case["first_20_draws_default_rng_seed0"]


def test_default_decay_rate_is_two():
    np.testing.assert_array_equal(tau_weights(1, 9), tau_weights(1, 9, 2.0))


@pytest.mark.parametrize("decay_rate", [-2000.0, 2000.0, 1e300])
def test_extreme_decay_rates_stay_finite(decay_rate):
    weights = tau_weights(1, 5, decay_rate)
    assert weights.sum() == pytest.approx(1)
    assert np.argmax(weights) == (4 if decay_rate < 0 else 0)


@pytest.mark.parametrize("limits", [(3, 2), (-1, 2)])
def test_reversed_and_negative_ranges_are_refused(limits):
    with pytest.raises(ValueError, match="0 <= tau_min <= tau_max"):
        sample_tau(*limits, np.random.default_rng(0))
    with pytest.raises(ValueError, match="tau range of row 1"):
        sample_tau_batch(np.array([1, limits[0]]), np.array([1, limits[1]]), np.random.default_rng(0))


@pytest.mark.parametrize("decay_rate", [float("nan"), float("inf")])
def test_decay_rates_that_are_no_numbers_are_refused(decay_rate):
    with pytest.raises(ValueError, match="decay_rate must be finite"):
        sample_tau(1, 2, np.random.default_rng(0), decay_rate)


def test_ranges_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="of one length"):
        sample_tau_batch(np.array([1, 2]), np.array([3]), np.random.default_rng(0))


def test_an_empty_batch_is_empty():
    empty = np.array([], dtype=np.int64)
    assert sample_tau_batch(empty, empty, np.random.default_rng(0)).shape == (0,)


@given(
    ranges=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted), min_size=1, max_size=8),
    decay_rate=st.floats(-50, 50),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_batch_draws_stay_inside_their_own_range(ranges, decay_rate, seed):
    low, high = np.array(ranges).T
    tau = sample_tau_batch(low, high, np.random.default_rng(seed), decay_rate)
    assert ((low <= tau) & (tau <= high)).all()
    again = sample_tau_batch(low, high, np.random.default_rng(seed), decay_rate)
    np.testing.assert_array_equal(tau, again)


def test_batch_frequencies_follow_the_law_of_each_range():
    n = 20_000
    low, high = np.repeat([1, 2], n), np.repeat([4, 3], n)
    tau = sample_tau_batch(low, high, np.random.default_rng(0)).reshape(2, n)
    for row, limits in zip(tau, [(1, 4), (2, 3)], strict=True):
        frequencies = [(row == value).mean() for value in range(limits[0], limits[1] + 1)]
        np.testing.assert_allclose(frequencies, tau_weights(*limits), atol=0.012)


def test_the_law_is_restricted_to_what_is_allowed():
    n = 20_000
    allowed = np.tile([True, False, True, True], (n, 1))
    tau = sample_tau_batch(np.ones(n, int), np.full(n, 4), np.random.default_rng(0), allowed=allowed)
    expected = tau_weights(1, 4)[[0, 2, 3]]
    np.testing.assert_allclose([(tau == value).mean() for value in (1, 3, 4)], expected / expected.sum(), atol=0.012)


def test_an_allowed_offset_is_drawn_even_when_its_weight_underflows():
    allowed = np.array([[False, False, True]])
    assert sample_tau_batch(np.array([1]), np.array([3]), np.random.default_rng(0), 1e6, allowed).tolist() == [3]


def test_a_row_without_an_allowed_offset_is_named():
    with pytest.raises(ValueError, match="row 1: no tau"):
        sample_tau_batch(
            np.array([1, 1]), np.array([2, 2]), np.random.default_rng(0), allowed=[[True, True], [False, False]]
        )
