from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynaclr.lineage import LineageForest
from dynaclr.positives import PositiveLookup
from dynaclr.tau_sampling import tau_weights

SCOPES = ["descendants", "lineage", "track"]


@st.composite
def observations(draw):
    """Random forests with gaps in the tracks, daughters that may begin before their mother ends, shuffled rows."""
    n_tracks = draw(st.integers(1, 7))
    parent = [draw(st.integers(-1, track - 1)) for track in range(n_tracks)]
    rows = [
        (track, t)
        for track in range(n_tracks)
        for t in sorted(draw(st.sets(st.integers(0, 8), min_size=1, max_size=6)))
    ]
    track, t = np.array(draw(st.permutations(rows))).T
    return parent, track, t


def relatives(parent, scope, anchor, other):
    def path(track):
        return [track] if parent[track] < 0 else [track, *path(parent[track])]

    if scope == "track":
        return anchor == other
    return anchor in path(other) if scope == "descendants" else path(anchor)[-1] == path(other)[-1]


def candidates(parent, track, t, scope, row, tau):
    return [
        other
        for other in range(len(t))
        if t[other] == t[row] + tau and relatives(parent, scope, track[row], track[other])
    ]


@pytest.mark.parametrize("scope", SCOPES)
@given(data=observations(), limits=st.tuples(st.integers(0, 5), st.integers(0, 5)).map(sorted), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_lookup_equals_a_loop_over_all_pairs(scope, data, limits, seed):
    parent, track, t = data
    lookup = PositiveLookup(t, track, LineageForest(parent), scope)
    rows = np.arange(len(t))
    low, high = limits
    taus = [0] if high == 0 else range(max(low, 1), high + 1)
    expected = [{tau: candidates(parent, track, t, scope, row, tau) for tau in taus} for row in rows]
    for tau in taus:
        assert lookup.count(rows, tau).tolist() == [len(found[tau]) for found in expected]
    valid = lookup.has_positive(rows, low, high)
    assert valid.tolist() == [any(found.values()) for found in expected]
    positives, tau = lookup.draw(rows[valid], low, high, np.random.default_rng(seed))
    for row, positive, offset in zip(rows[valid], positives, tau, strict=True):
        assert positive == row if high == 0 else positive in expected[row][offset]


DIVISION = LineageForest([-1, 0, 0])  # mother 0, daughters 1 and 2
TRACK = np.array([0, 0, 1, 1, 2, 2])
T = np.array([0, 1, 2, 3, 2, 3])


def test_sisters_are_not_positives_of_each_other():
    lookup = PositiveLookup(T, TRACK, DIVISION)
    positives, _ = lookup.draw(np.full(200, 2), 1, 3, np.random.default_rng(0))
    assert set(positives) == {3}


def test_both_daughters_are_positives_of_the_mother():
    positives, tau = PositiveLookup(T, TRACK, DIVISION).draw(np.full(200, 1), 1, 2, np.random.default_rng(0))
    assert set(zip(positives, tau, strict=True)) == {(2, 1), (4, 1), (3, 2), (5, 2)}


def test_a_daughter_of_one_frame_is_no_anchor_because_of_her_sister():
    lookup = PositiveLookup(T[:5], TRACK[:5], DIVISION)  # daughter 2 has a single frame, daughter 1 goes on
    assert lookup.has_positive(np.arange(5), 1, 1).tolist() == [True, True, True, False, False]
    whole_lineage = PositiveLookup(T[:5], TRACK[:5], DIVISION, "lineage")
    assert whole_lineage.has_positive(np.arange(5), 1, 1).tolist() == [True, True, True, False, True]


@pytest.mark.parametrize("scope", SCOPES)
def test_an_anchor_is_never_its_own_positive(scope):
    lookup = PositiveLookup(T, TRACK, DIVISION, scope)
    rows = np.repeat([0, 2, 4], 100)
    positives, tau = lookup.draw(rows, 0, 1, np.random.default_rng(0))
    assert (tau == 1).all()
    assert (T[positives] == T[rows] + 1).all()


@pytest.mark.parametrize("scope", SCOPES)
def test_the_range_zero_to_zero_is_the_anchor_itself(scope):
    lookup = PositiveLookup(T, TRACK, DIVISION, scope)
    rows = np.arange(6)
    assert lookup.has_positive(rows, 0, 0).all()
    positives, tau = lookup.draw(rows, 0, 0, np.random.default_rng(0))
    np.testing.assert_array_equal(positives, rows)
    assert not tau.any()


def test_offsets_follow_the_law_restricted_to_those_with_a_candidate():
    t, track = np.array([0, 1, 3, 4]), np.zeros(4, int)  # no frame 2
    _, tau = PositiveLookup(t, track, LineageForest([-1])).draw(np.zeros(20_000, int), 1, 4, np.random.default_rng(0))
    expected = tau_weights(1, 4)[[0, 2, 3]]
    np.testing.assert_allclose([(tau == k).mean() for k in (1, 3, 4)], expected / expected.sum(), atol=0.012)


def test_candidates_of_one_offset_are_equally_likely():
    positives, _ = PositiveLookup(T, TRACK, DIVISION).draw(np.full(20_000, 1), 1, 1, np.random.default_rng(0))
    assert (positives == 2).mean() == pytest.approx(0.5, abs=0.012)


def test_ranges_may_differ_between_anchors():
    t, track = np.arange(10), np.zeros(10, int)
    lookup = PositiveLookup(t, track, LineageForest([-1]))
    positives, tau = lookup.draw(np.array([0, 1, 2]), [1, 5, 0], [1, 5, 0], np.random.default_rng(0))
    assert (positives.tolist(), tau.tolist()) == ([1, 6, 2], [1, 5, 0])


def test_draws_depend_on_the_generator_only():
    lookup = PositiveLookup(T, TRACK, DIVISION)
    first, second = (lookup.draw([0, 1, 2], 1, 3, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_an_anchor_without_candidate_says_that_the_ranges_do_not_match():
    with pytest.raises(ValueError, match="does not match the one that the index was built with"):
        PositiveLookup(T, TRACK, DIVISION).draw([0, 3], 1, 2, np.random.default_rng(0))


def test_a_candidate_beyond_the_range_of_its_anchor_is_none_though_another_range_is_longer():
    lookup = PositiveLookup([0, 3, 0, 1], [0, 0, 1, 1], LineageForest([-1, -1]))
    with pytest.raises(ValueError, match=r"1 of 2 .* row 0, have no positive at any tau of 1 to 2"):
        lookup.draw([0, 2], [1, 1], [2, 3], np.random.default_rng(0))


def test_reversed_ranges_and_unknown_scopes_are_refused():
    with pytest.raises(ValueError, match="tau ranges must satisfy"):
        PositiveLookup(T, TRACK, DIVISION).draw([0], 2, 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="positive_scope must be one of descendants, lineage, track"):
        PositiveLookup(T, TRACK, DIVISION, "sisters")


def test_an_empty_batch_is_empty():
    positives, tau = PositiveLookup(T, TRACK, DIVISION).draw([], 1, 2, np.random.default_rng(0))
    assert len(positives) == len(tau) == 0
