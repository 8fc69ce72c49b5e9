from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynaclr.lineage import LineageCycleError, LineageForest


def ancestors(parent, track):
    """The track and everything above it, by walking."""
    path = [track]
    while parent[path[-1]] >= 0:
        path.append(parent[path[-1]])
    return path


@st.composite
def forests(draw):
    """Parents in any order of numbering: a forest built in one order and then renumbered."""
    n = draw(st.integers(1, 24))
    built = [draw(st.integers(-1, track - 1)) for track in range(n)]
    number = draw(st.permutations(range(n)))
    parent = np.full(n, -1)
    for track, above in enumerate(built):
        parent[number[track]] = -1 if above < 0 else number[above]
    return parent


@given(parent=forests())
@settings(deadline=None, max_examples=80)
def test_roots_and_relations_equal_walking_up(parent):
    forest = LineageForest(parent)
    n = len(parent)
    paths = [ancestors(parent, track) for track in range(n)]
    assert forest.root.tolist() == [path[-1] for path in paths]
    expected = np.array([[a in paths[d] for a in range(n)] for d in range(n)])
    tracks = np.arange(n)
    np.testing.assert_array_equal(forest.is_descendant(tracks[:, None], tracks), expected)


@given(parent=forests())
@settings(deadline=None, max_examples=40)
def test_intervals_are_a_depth_first_order(parent):
    forest = LineageForest(parent)
    assert sorted(forest.enter) == list(range(len(parent)))
    sizes = [sum(a in ancestors(parent, d) for d in range(len(parent))) for a in range(len(parent))]
    assert (forest.leave - forest.enter).tolist() == sizes


def test_arrays_are_compact():
    forest = LineageForest([-1, 0])
    assert {array.dtype for array in (forest.parent, forest.root, forest.enter, forest.leave)} == {np.dtype("int32")}


@pytest.mark.parametrize(
    ("parent", "on_cycle"),
    [
        ([1, 0], [0, 1]),
        ([-1, 0, 3, 4, 2, 2], [2, 3, 4]),  # 5 leads onto the cycle without lying on it
        ([0], [0]),
        ([1, 2, 3, 4, 5, 6, 7, 0, 0], list(range(8))),
    ],
)
def test_a_cycle_names_the_tracks_on_it(parent, on_cycle):
    with pytest.raises(LineageCycleError, match="their own ancestors") as caught:
        LineageForest(parent)
    assert caught.value.tracks.tolist() == on_cycle


def test_parents_that_are_no_tracks_are_refused():
    with pytest.raises(ValueError, match="between -1 and 1"):
        LineageForest([-1, 2])


def test_an_empty_forest_is_empty():
    assert len(LineageForest([])) == 0


def test_a_chain_of_many_generations_is_neither_recursive_nor_quadratic():
    n = 200_000
    forest = LineageForest(np.arange(n) - 1)  # a walk per track would run into the time limit of the test
    assert (forest.root == 0).all()
    assert bool(forest.is_descendant(n - 1, 10_000))
    assert not bool(forest.is_descendant(10_000, n - 1))


def test_many_daughters_of_one_mother():
    forest = LineageForest(np.r_[-1, np.zeros(50_000, dtype=int)])
    assert (forest.leave[0], forest.enter[0]) == (50_001, 0)
    assert not bool(forest.is_descendant(2, 1))
