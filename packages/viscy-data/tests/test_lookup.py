"""Sorted rows against a search through all of them."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viscy_data.lookup import SortedRows, draw_places, true_rows

KEYS = st.lists(st.integers(-3, 12), max_size=40)


@settings(deadline=None, max_examples=100)
@given(keys=KEYS, first=st.integers(-5, 15), width=st.integers(0, 6))
def test_a_range_of_keys_holds_the_rows_of_these_keys_in_their_order(keys, first, width):
    table = SortedRows(keys)
    begin, stop = table.between([first], [first + width])
    expected = [(key, row) for row, key in enumerate(keys) if first <= key < first + width]
    assert table.rows(np.arange(begin[0], stop[0])).tolist() == [row for _, row in sorted(expected)]
    assert table.any_between(np.array([first]), np.array([first + width])).tolist() == [bool(expected)]
    assert len(table) == len(keys)


@settings(deadline=None, max_examples=100)
@given(
    keys=st.lists(st.integers(-(2**40), 2**40) | st.integers(0, 2**32 + 1) | st.integers(0, 500), max_size=200),
    asked=st.lists(st.integers(-(2**41), 2**41) | st.integers(0, 2**32 + 1) | st.integers(0, 500), min_size=1),
)
def test_places_are_those_of_a_search_through_all_keys(keys, asked):
    begin, stop = SortedRows(keys).between(asked, np.array(asked) + 1)
    np.testing.assert_array_equal(begin, np.searchsorted(sorted(keys), asked, side="left"))
    np.testing.assert_array_equal(stop, np.searchsorted(sorted(keys), asked, side="right"))


@pytest.mark.parametrize(("highest", "n_bytes"), [(2**32 - 1, 8), (2**32, 12)])
def test_a_row_costs_eight_bytes_as_long_as_keys_fit_into_four(highest, n_bytes):
    keys = np.append(np.random.default_rng(0).integers(0, highest, 9_999), highest)
    assert n_bytes <= len(pickle.dumps(SortedRows(keys), protocol=5)) / len(keys) < n_bytes + 1


def test_sorting_takes_twice_what_is_held():
    keys = np.random.default_rng(0).integers(0, 2**32, 4_000_000, dtype=np.uint32)
    tracemalloc.start()
    table = SortedRows(keys)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 8.5 * len(keys)
    assert peak < 2.2 * 8.25 * len(keys)  # blocks included
    np.testing.assert_array_equal(table.rows(np.arange(len(keys))), np.argsort(keys, kind="stable"))


@settings(deadline=None, max_examples=30)
@given(mask=st.lists(st.booleans()))
def test_true_rows_are_those_of_the_mask(mask):
    mask = np.array(mask * 2**14, bool)
    np.testing.assert_array_equal(true_rows(mask), np.flatnonzero(mask))


def test_draws_are_uniform_and_step_over_what_is_left_out():
    n = 30_000
    begin, stop, own = np.full(n, 4), np.full(n, 12), (np.full(n, 6), np.full(n, 9))
    counts = np.bincount(draw_places(begin, stop, np.random.default_rng(0), own), minlength=12)
    allowed = [4, 5, 9, 10, 11]
    assert counts.sum() == counts[allowed].sum()
    assert counts[allowed] == pytest.approx(np.full(5, n / 5), rel=0.05)


class AlmostOne:
    """The largest number that a generator can return."""

    def random(self, size):
        return np.full(size, np.nextafter(1.0, 0.0))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 1000, 2**31 - 1, 2**52 + 1, 2**53 - 1])
def test_the_largest_random_number_stays_inside_the_slice(length):
    begin, stop = np.array([0, 7]), np.array([length, 7])
    assert draw_places(begin, stop, AlmostOne()).tolist() == [length - 1, 7]
