"""The arithmetic under the sampler: permutations without a list, and whole counts from shares."""

import doctest
import importlib
import pkgutil
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import viscy_data.sampler
from viscy_data.sampler.draw import Pools
from viscy_data.sampler.epoch import Epoch, floor_sum
from viscy_data.sampler.groups import AnchorGroups
from viscy_data.sampler.lineages import LineageLimit
from viscy_data.sampler.permutation import cyclic_element, hash_key, permute, permute_runs
from viscy_data.sampler.rounding import PERIOD, rotating_counts, whole_part

pd = pytest.importorskip("pandas")

MODULES = [f"viscy_data.sampler.{module.name}" for module in pkgutil.iter_modules(viscy_data.sampler.__path__)]


@pytest.mark.parametrize("name", [*MODULES, "viscy_data.lookup"])
def test_examples_beside_the_arithmetic_are_true(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@settings(deadline=None, max_examples=150)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_a_permutation_holds_each_element_once(size, key):
    assert np.array_equal(np.sort(permute(np.arange(size), size, key)), np.arange(size))


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 500), key=st.integers(0, 2**64 - 1), length=st.integers(1, 40))
def test_runs_of_neighbours_hold_each_element_once_in_every_cycle(size, key, length):
    sizes, keys = np.full(2 * size, size), np.full(2 * size, key, np.uint64)
    elements = permute_runs(np.arange(2 * size), sizes, keys, length)
    assert np.array_equal(np.sort(elements[:size]), np.arange(size))
    assert np.array_equal(elements[:size], elements[size:])
    inside = np.arange(1, size) % length > 0
    assert (np.diff(elements[:size])[inside] % size == 1 % size).all()


def test_elements_do_not_depend_on_what_else_is_asked():
    sizes, keys = np.array([10, 1000, 2**31 - 1]), np.array([1, 2, 3], dtype=np.uint64)
    together = permute([3, 700, 2**30], sizes, keys)
    assert together.tolist() == [permute(i, s, k)[0] for i, s, k in zip([3, 700, 2**30], sizes, keys, strict=True)]


@pytest.mark.parametrize("size", [2, 3, 5, 12, 30])
def test_every_element_comes_first_equally_often(size):
    keys = np.array([hash_key(k) for k in range(6000)], dtype=np.uint64)
    for index in (0, size - 1):
        counts = np.bincount(permute(np.full(6000, index), size, keys), minlength=size)
        expected = 6000 / size
        assert ((counts - expected) ** 2 / expected).sum() < size + 6 * np.sqrt(2 * size)


@pytest.mark.parametrize("size", [3, 4, 7, 8, 20, 49, 63])
def test_every_pair_is_equally_likely_in_small_permutations(size):
    """Chi-square over all ordered pairs of two places, for fixed keys; a uniform one stays below 5 deviations."""
    keys = np.array([hash_key(k) for k in range(60_000)], dtype=np.uint64)
    one, other = (permute(np.full(len(keys), index), size, keys) for index in (size // 3, size - 1))
    counts = np.bincount(one * size + other, minlength=size**2).reshape(size, size)
    assert not counts.diagonal().any()
    expected, freedom = len(keys) / (size * (size - 1)), size * (size - 1) - 1
    chi_square = ((counts[~np.eye(size, dtype=bool)] - expected) ** 2 / expected).sum()
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def test_pairs_of_larger_permutations_come_close_to_equally_likely():
    size, n = 150, 120_000
    keys = np.random.default_rng(0).integers(0, 2**64, n, dtype=np.uint64)
    one, other = (permute(np.full(n, index), size, keys) for index in (50, 51))
    counts = np.bincount(one * size + other, minlength=size**2).reshape(size, size)[~np.eye(size, dtype=bool)]
    # The variance beyond that of counting is that of the probabilities: within 7 % of each other.
    assert counts.var() - counts.mean() < 0.005 * counts.mean() ** 2


def test_neighbours_are_torn_apart():
    """Consecutive elements of a large permutation look independent: no correlation, all regions hit."""
    x = permute(np.arange(20000), 1_000_000, hash_key(5))
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.03
    counts = np.bincount(x // 10000, minlength=100)
    assert ((counts - 200) ** 2 / 200).sum() < 160


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 60), reach=st.integers(1, 40), key=st.integers(0, 2**63))
def test_an_endless_sequence_runs_through_all_before_it_repeats(size, reach, key):
    index = np.arange(6 * size)
    full = [np.full(len(index), value) for value in (size, key, reach)]
    found = cyclic_element(index, full[0], full[1].astype(np.uint64), full[2])
    for cycle in found.reshape(6, size):
        assert len(set(cycle.tolist())) == size
    window = min(reach, size)
    for first in range(len(index) - window):
        assert len(set(found[first : first + window].tolist())) == window


@pytest.mark.parametrize("cycle", [1, 5])
def test_pairs_of_later_cycles_are_equally_likely(cycle):
    n, size = 40_000, 12
    keys = np.random.default_rng(1).integers(0, 2**64, n, dtype=np.uint64)
    place = (np.full(n, cycle * size + at) for at in (2, 3))
    one, other = (cyclic_element(at, np.full(n, size), keys, np.full(n, 4)) for at in place)
    counts = np.bincount(one * size + other, minlength=size**2).reshape(size, size)[~np.eye(size, dtype=bool)]
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 131 + 5 * np.sqrt(2 * 131)


def test_later_cycles_have_another_order():
    index, ones = np.arange(400), np.ones(400, dtype=np.int64)
    found = cyclic_element(index, 200 * ones, (9 * ones).astype(np.uint64), 8 * ones)
    assert (found[:200] != found[200:]).mean() > 0.9


@settings(deadline=None, max_examples=100)
@given(size=st.integers(0, 200), weights=st.lists(st.floats(0.01, 1), min_size=1, max_size=12), shift=st.floats(0, 9))
def test_counts_add_up_and_are_the_quota_rounded(size, weights, shift):
    shares = np.array(weights) / sum(weights)
    counts = rotating_counts(size, shares, shift)
    assert (counts.sum(axis=1) == size).all()
    assert (np.abs(counts - size * shares) < 1 + 1e-6).all()
    assert np.abs(counts.mean(axis=0) - size * shares).max() <= 1.01 / PERIOD * 2


def test_ten_conditions_share_a_batch_of_eight_exactly():
    counts = rotating_counts(8, np.full(10, 0.1))
    assert counts.sum(axis=0).tolist() == [192] * 10
    assert np.abs(counts[:30].sum(axis=0) - 24).max() <= 2


@pytest.mark.parametrize(("size", "fraction", "expected"), [(100, 0.29, 29), (16, 0.3, 4), (20, 0.2, 4), (10, 0.0, 0)])
def test_fractions_are_rounded_down(size, fraction, expected):
    assert whole_part(size, fraction) == expected


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 200),
    n_times=st.integers(1, 90),
    half=st.floats(0, 20).map(lambda half: round(half, 3)),  # windows take what is wider by rounding alone
)
def test_slices_and_windows_equal_a_search_through_the_table(seed, n, n_times, half):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "e": rng.choice(["b", "a", "c"], n),
            "c": pd.Categorical(rng.choice(["x", "y"], n), categories=["z", "y", "x"]),
            "t": rng.integers(0, n_times, n) / 4,
        }
    )
    groups = AnchorGroups.from_table(table, "e", "c", "t")
    assert groups.experiments == tuple(sorted(set(table["e"])))
    assert groups.conditions == tuple(sorted(set(table["c"])))
    focal = float(table["t"].iloc[0])
    window = groups.window(focal, half)
    assert groups.time_at(int(np.flatnonzero(groups.order == 0)[0])) == focal
    for i, experiment in enumerate(groups.experiments):
        for j, condition in enumerate(groups.conditions):
            chosen = (table["e"] == experiment) & (table["c"] == condition)
            for edges, mask in ((groups.edges, chosen), (window, chosen & ((table["t"] - focal).abs() <= half))):
                first, stop = edges[i, j]
                assert sorted(groups.order[first:stop]) == np.flatnonzero(mask).tolist()


def test_many_distinct_times_are_sorted_too():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"e": rng.integers(0, 7, 70_000).astype(str), "t": rng.permutation(70_000) * 0.37})
    groups = AnchorGroups.from_table(table, "e", None, "t")
    expected = np.lexsort((table["t"], table["e"]))
    assert np.array_equal(groups.order, expected)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 40), st.integers(0, 100), st.integers(0, 100))
def test_floor_sums_are_those_of_the_loop(n, modulus, slope, offset):
    assert floor_sum(n, modulus, slope, offset) == sum((slope * i + offset) // modulus for i in range(n))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 200), st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), st.integers(0, 5))
def test_batches_of_an_epoch_are_numbered_within_their_experiments(n_batches, weights, seed):
    shares = np.array(weights) / sum(weights)
    placed = [Epoch(seed, 0, n_batches, shares).place(number)[:2] for number in range(n_batches)]
    seen = [0] * len(shares)
    for experiment, earlier in placed:
        assert earlier == seen[experiment]
        seen[experiment] += 1
    assert np.abs(np.array(seen) - shares * n_batches).max() < 1


def test_any_run_of_batches_is_close_to_the_shares_of_the_experiments():
    shares = np.array([0.6, 0.3, 0.1])
    epoch = Epoch(3, 1, 5000, shares)
    found = np.eye(3)[[epoch.place(number)[0] for number in range(5000)]]
    drift = np.cumsum(found - shares, axis=0)
    assert np.ptp(drift, axis=0).max() < 10  # of independent draws about 100


def test_an_anchor_that_a_chain_of_exchanges_has_freed_can_be_taken_again():
    lineage = np.array([2, 3, 1, 4, 4, 4, 5, 3, 4, 1, 4])
    pools = Pools(np.array([[[0, 3]], [[3, 7]], [[7, 8]], [[8, 11]]]))
    request, drawn = np.array([0, 0, 1, 2, 3, 3, 3]), np.array([0, 1, 3, 7, 9, 10, 8])
    places, n_beyond = LineageLimit(lineage, 1).apply(drawn, request, pools, key=9359)
    assert n_beyond == 2  # seven anchors of five lineages
    assert len(set(places.tolist())) == 7
    assert pools.request_of(places).tolist() == request.tolist()


def test_anchors_of_many_blocks_are_sorted_in_little_more_room_than_the_result():
    """Where two blocks meet, rows of a key keep their order: 4 bytes per anchor are kept."""
    rng, n = np.random.default_rng(0), 1_200_000
    codes = [rng.integers(0, size, n, dtype=np.int8) for size in (3, 2, 40)]
    labels = [pd.Categorical.from_codes(own, list(names)) for own, names in zip(codes[:2], ("abc", "xy"), strict=True)]
    hours = codes[2] * np.float32(0.5)
    table = pd.DataFrame({"e": labels[0], "c": labels[1], "t": hours}, copy=False)
    AnchorGroups.from_table(table, "e", "c", "t")  # imports and caches
    tracemalloc.start()
    groups = AnchorGroups.from_table(table, "e", "c", "t")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(groups.order, np.lexsort(codes[::-1]))
    assert held < 4.5 * n
    assert peak < 8 * n + 80 * 2**18  # codes, keys and order; and a block
