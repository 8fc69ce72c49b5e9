import itertools
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from viscy_data.distributed import World
from viscy_data.errors import InputError, InputErrors
from viscy_data.sampler import AnchorColumns, BatchPlan, FlexibleBatchSampler

pd = pytest.importorskip("pandas")

GOLDEN_ANCHORS = Path(__file__).parent / "golden" / "sampler_anchors.csv"


def make_table(n=600, n_experiments=3, conditions=("x", "y"), seed=0, n_times=20, p=None):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "experiment": rng.choice([f"e{i}" for i in range(n_experiments)], n),
            "condition": rng.choice(list(conditions), n, p=p),
            "hours_post_infection": rng.integers(0, n_times, n) * 0.5,
            "lineage": rng.integers(0, max(1, n // 6), n),
        }
    )


def flat(lists):
    return [item for part in lists for item in part]


def epoch_of(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


@settings(deadline=None, max_examples=15)
@given(
    n=st.integers(1, 130),
    batch_size=st.integers(1, 17),
    aware=st.booleans(),
    drop_last=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_worlds_of_one_to_eight_ranks_share_one_sequence(n, batch_size, aware, drop_last, epoch):
    table = make_table(n)
    options = {"batch_size": batch_size, "experiment_aware": aware, "drop_last": drop_last}
    lone = epoch_of(FlexibleBatchSampler(table, **options), epoch)
    for size in range(1, 9):
        samplers = [FlexibleBatchSampler(table, num_replicas=size, rank=rank, **options) for rank in range(size)]
        ranks = [epoch_of(sampler, epoch) for sampler in samplers]
        assert {len(rank) for rank in ranks} == {len(sampler) for sampler in samplers} == {-(-len(lone) // size)}
        dealt = [batch for turn in zip(*ranks, strict=True) for batch in turn]
        assert dealt[: len(lone)] == lone
        assert dealt[len(lone) :] == [lone[i % len(lone)] for i in range(len(lone), len(dealt))]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 99),
    batch_size=st.integers(1, 40),
    aware=st.booleans(),
    leaky=st.sampled_from([0.0, 0.1, 0.25, 0.6]),
    ratio=st.sampled_from([None, {"x": 0.7}, {"x": 0.5, "y": 0.3, "z": 0.2}]),
    temporal=st.booleans(),
    wide=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_all_axes_hold_together_by_exact_counts(seed, batch_size, aware, leaky, ratio, temporal, wide):
    table = make_table(3000, conditions="xyz", seed=seed, p=[0.6, 0.3, 0.1])
    leaky = leaky if aware else 0.0
    sampler = FlexibleBatchSampler(
        table,
        batch_size,
        aware,
        leaky,
        condition_ratio=ratio,
        temporal_enrichment=temporal,
        temporal_global_fraction=wide,
        seed=seed,
    )
    shares = {"x": 0.7, "y": 0.15, "z": 0.15} if ratio == {"x": 0.7} else ratio or dict.fromkeys("xyz", 1 / 3)
    for number in range(5):
        rows = table.iloc[sampler.batch(number)]
        assert len(rows) == len(set(rows.index)) == batch_size
        leak = int(batch_size * leaky + 1e-9)
        n_parts = (1 + (leak > 0)) * (1 + temporal)
        for condition, share in shares.items():
            assert abs((rows["condition"] == condition).sum() - batch_size * share) < n_parts + 1e-9
        if aware and leaky < 0.5:
            counts = rows["experiment"].value_counts()
            assert counts.iloc[0] == batch_size - leak
    delivered = sampler.stats()
    assert delivered["batches"] == 5
    assert sum(row["delivered"] for row in delivered["condition"].values()) == 5 * batch_size
    if temporal:
        sides = [batch_size - leak, leak]
        assert delivered["temporal"]["global"]["delivered"] >= 5 * sum(int(side * wide + 1e-9) for side in sides)
    assert set(delivered["fallbacks"].values()) == {0} or temporal


def test_focal_global_and_leaked_parts_are_each_balanced():
    """Nine to one in the table, even in every part of every batch."""
    table = make_table(20_000, conditions="xy", p=[0.9, 0.1])
    sampler = FlexibleBatchSampler(table, 40, leaky=0.2, temporal_enrichment=True, temporal_window_hours=1.0)
    hours = table["hours_post_infection"].to_numpy()
    for number in range(30):
        chosen = sampler.batch(number)
        rows = table.iloc[chosen]
        own = rows["experiment"] == rows["experiment"].mode()[0]
        assert own.sum() == 32
        # own: 23 focal and 9 global; leaked: 6 focal and 2 global
        centres = [t for t in np.unique(hours) if (np.abs(hours[chosen] - t) <= 1.0).sum() == 29]
        assert centres
        balanced = []
        for centre in centres:
            focal = np.abs(rows["hours_post_infection"] - centre) <= 1.0
            parts = [focal & own, ~focal & own, focal & ~own, ~focal & ~own]
            counts = [(rows["condition"][part] == "x").sum() for part in parts]
            sizes = [part.sum() for part in parts]
            within = all(abs(c - s / 2) <= 0.5 for c, s in zip(counts, sizes, strict=True))
            balanced.append(sizes == [23, 9, 6, 2] and within and sum(counts) == 20)
        assert any(balanced)
    assert set(sampler.stats()["fallbacks"].values()) == {0}


def test_ten_conditions_in_batches_of_eight_get_equal_shares():
    conditions = [f"c{i}" for i in range(10)]
    table = make_table(4000, 1, conditions)
    sampler = FlexibleBatchSampler(table, 8)
    drawn = np.concatenate([epoch_of(sampler, epoch) for epoch in range(2)]).ravel()
    shares = table["condition"].iloc[drawn].value_counts(normalize=True)
    assert shares.to_numpy() == pytest.approx(np.full(10, 0.1), abs=0.002)


def test_short_epochs_do_not_prefer_a_condition():
    """One batch per epoch: the rounding rotates over epochs as well."""
    table = make_table(40, 1, ["a", "b", "c"])
    sampler = FlexibleBatchSampler(table, 32)
    drawn = [i for epoch in range(300) for batch in epoch_of(sampler, epoch) for i in batch]
    shares = table["condition"].iloc[drawn].value_counts(normalize=True)
    assert shares.to_numpy() == pytest.approx(np.full(3, 1 / 3), abs=0.005)


@pytest.mark.parametrize("aware", [False, True])
def test_an_epoch_without_reweighting_sees_every_anchor_once(aware):
    table = pd.DataFrame({"experiment": np.repeat(["a", "b", "c"], [64, 128, 32])})
    sampler = FlexibleBatchSampler(table, 16, aware, condition_balanced=False)
    for epoch in range(3):
        drawn = flat(epoch_of(sampler, epoch))
        assert sorted(drawn) == list(range(224))
        assert sampler.coverage(epoch) == 1.0


def test_the_partial_batch_is_all_that_an_epoch_misses():
    table = make_table(105, 1)
    dropped = FlexibleBatchSampler(table, 10, False, condition_balanced=False)
    assert len(dropped) == 10
    assert len(set(flat(dropped))) == 100
    kept = FlexibleBatchSampler(table, 10, False, condition_balanced=False, drop_last=False)
    assert len(kept) == len(list(kept)) == 11
    assert {len(batch) for batch in kept} == {len({*batch}) for batch in kept} == {10}
    assert set(flat(kept)) == set(range(105))


def test_a_stratum_is_used_up_before_it_repeats():
    """30 of the minority at 8 per batch: the first three batches differ, and ten use each one equally often."""
    table = pd.DataFrame({"experiment": "a", "condition": ["m"] * 30 + ["w"] * 970})
    sampler = FlexibleBatchSampler(table, 16)
    minority = [i for number in range(60) for i in sampler.batch(number) if i < 30]
    assert len(minority) == 480
    for cycle in range(16):
        assert sorted(minority[30 * cycle : 30 * cycle + 30]) == list(range(30))


def test_leaked_anchors_do_not_repeat_before_their_pool_is_used_up():
    table = pd.DataFrame({"experiment": ["a"] * 400 + ["b"] * 50})
    weights = {"a": 1.0, "b": 0.0}
    sampler = FlexibleBatchSampler(table, 10, leaky=0.5, experiment_weights=weights, condition_balanced=False)
    leaked = [i for number in range(10) for i in sampler.batch(number) if i >= 400]
    assert sorted(leaked) == list(range(400, 450))


def test_batches_are_a_function_of_seed_epoch_and_number():
    table = make_table()
    for temporal in (False, True):
        make = lambda seed, t=temporal: FlexibleBatchSampler(table, 16, leaky=0.2, temporal_enrichment=t, seed=seed)  # noqa: E731
        first, again, other = make(0), make(0), make(1)
        assert epoch_of(first, 1) == epoch_of(again, 1)
        assert np.array_equal(first.batch(7, epoch=3), epoch_of(again, 3)[7])
        epochs = [str(epoch_of(sampler, epoch)) for sampler in (first, other) for epoch in range(4)]
        assert len(set(epochs)) == 8


@pytest.mark.parametrize(
    "options",
    [
        {"experiment_aware": False, "condition_balanced": False},
        {"condition_balanced": False},
        {},
        {"leaky": 0.5},
        {"temporal_enrichment": True},
        {"max_per_lineage": 1, "lineage_column": "lineage"},
    ],
    ids=["plain", "aware", "balanced", "leaky", "temporal", "lineage"],
)
@pytest.mark.parametrize(("seed", "epoch"), [(0, 1), (0, 2), (1, 0)])
def test_no_epoch_and_no_seed_repeats_the_batches_of_another(options, seed, epoch):
    """Two random batches of 32 from 1000 anchors share about one; the same batches in another order would share all."""
    table = make_table(2000, 2)
    first, other = FlexibleBatchSampler(table, 32, **options), FlexibleBatchSampler(table, 32, seed=seed, **options)
    before, after = np.zeros((2, 62, 2000), dtype=int)
    for number in range(62):
        before[number, first.batch(number, 0)] = 1
        after[number, other.batch(number, epoch)] = 1
    assert (before @ after.T).max() <= 12


def test_a_plan_and_its_keywords_make_the_same_batches():
    table = make_table().rename(columns={"condition": "drug"})
    options = {"batch_size": 16, "leaky": 0.2, "temporal_enrichment": True, "max_per_lineage": 1}
    by_keywords = FlexibleBatchSampler(
        table, **options, num_replicas=3, rank=1, seed=5, condition_column="drug", lineage_column="lineage"
    )
    columns = AnchorColumns(condition="drug", lineage="lineage")
    by_plan = FlexibleBatchSampler.from_plan(table, BatchPlan(**options), World(3, 1), 5, columns=columns)
    assert epoch_of(by_plan, 2) == epoch_of(by_keywords, 2)
    assert len(FlexibleBatchSampler.from_plan(table.rename(columns={"drug": "condition"}), BatchPlan(100))) == 6


def test_iterating_does_not_advance_the_epoch():
    sampler = FlexibleBatchSampler(make_table(), 16)
    assert list(sampler) == list(sampler)


def test_global_generators_are_left_alone():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    list(FlexibleBatchSampler(make_table(), 16, temporal_enrichment=True))
    assert torch.equal(torch_before, torch.get_rng_state())
    assert numpy_before == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_nothing_is_leaked_without_another_experiment():
    table = make_table(200, 1)
    for batch in FlexibleBatchSampler(table, 20, leaky=0.3):
        assert len(set(batch)) == 20


def test_a_leak_larger_than_its_pool_repeats_and_is_counted():
    table = pd.DataFrame({"experiment": ["a"] * 500 + ["b"] * 3})
    sampler = FlexibleBatchSampler(
        table, 50, leaky=0.5, experiment_weights={"a": 1}, condition_balanced=False, drop_last=True
    )
    batch = sampler.batch(0)
    assert len(batch) == 50
    assert np.bincount(batch[batch >= 500] - 500).tolist() in ([8, 8, 9], [8, 9, 8], [9, 8, 8])
    assert len(set(batch[batch < 500].tolist())) == 25
    assert sampler.stats()["fallbacks"]["repeats"] == 22


def test_fewer_anchors_than_a_batch_make_one_batch_and_a_warning(caplog):
    for drop_last in (True, False):
        with caplog.at_level(logging.WARNING):
            sampler = FlexibleBatchSampler(make_table(5, 1), 16, drop_last=drop_last)
        assert "fewer than a batch of 16" in caplog.text
        assert [len(batch) for batch in sampler] == [16]
        assert set(sampler.batch(0).tolist()) == set(range(5))


def test_weights_decide_which_experiments_come():
    table = make_table(3000)
    sampler = FlexibleBatchSampler(table, 10, experiment_weights={"e0": 3, "e2": 1})
    leaders = [table["experiment"].iloc[batch].unique().tolist() for batch in sampler]
    assert all(len(names) == 1 for names in leaders)
    names, counts = np.unique(flat(leaders), return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"e0": 225, "e2": 75}


def test_small_experiments_get_their_share_over_the_epochs():
    table = pd.DataFrame({"experiment": ["a"] * 300 + ["b"] * 6})
    sampler = FlexibleBatchSampler(table, 20, condition_balanced=False)
    batches = [batch for epoch in range(200) for batch in epoch_of(sampler, epoch)]
    share = np.mean([batch[0] >= 300 for batch in batches])
    assert share == pytest.approx(6 / 306, abs=0.01)


def test_an_experiment_without_a_condition_gives_its_share_to_the_others():
    table = pd.DataFrame({"experiment": ["a"] * 60 + ["b"] * 60, "condition": ["x", "y", "z"] * 20 + ["x", "y"] * 30})
    sampler = FlexibleBatchSampler(table, 12)
    for batch in sampler:
        rows = table.iloc[batch]
        expected = [4, 4, 4] if rows["experiment"].iloc[0] == "a" else [6, 6]
        assert rows["condition"].value_counts().tolist() == expected


def test_conditions_left_out_of_the_ratio_share_the_rest():
    table = make_table(4000, 1, "xyz")
    drawn = np.concatenate(list(FlexibleBatchSampler(table, 20, condition_ratio={"x": 0.7})))
    shares = table["condition"].iloc[drawn].value_counts(normalize=True)
    assert shares[["x", "y", "z"]].to_numpy() == pytest.approx([0.7, 0.15, 0.15])


def test_rows_without_a_condition_form_a_condition_of_their_own():
    table = make_table(300, 1)
    table.loc[:50, "condition"] = None
    rows = table.iloc[FlexibleBatchSampler(table, 12).batch(0)]
    assert rows["condition"].isna().sum() == 4


def test_positions_are_returned_whatever_the_index():
    table = make_table(2000)[lambda t: t["experiment"] == "e1"]
    drawn = flat(FlexibleBatchSampler(table, 10, condition_balanced=False))
    assert set(drawn) <= set(range(len(table)))
    assert len(set(drawn)) == len(table) // 10 * 10


def test_the_focal_window_falls_back_within_the_condition_first():
    """Condition y is rare at late times: balance is kept, at the price of the window."""
    times = np.repeat(np.arange(10.0), 50)
    table = pd.DataFrame({"experiment": "a", "condition": "x", "hours_post_infection": times})
    table.loc[::50, "condition"] = "y"
    sampler = FlexibleBatchSampler(table, 16, temporal_enrichment=True, temporal_window_hours=0.0)
    batch = sampler.batch(0)
    assert (table["condition"].iloc[batch] == "y").sum() == 8
    assert len(set(batch.tolist())) == 16
    fallbacks = sampler.stats()["fallbacks"]
    assert fallbacks["outside_window"] == 5
    assert fallbacks["repeats"] == 0


def test_batches_stay_full_where_a_rare_condition_is_outside_of_the_window():
    times = np.repeat(np.arange(10.0), 50)
    table = pd.DataFrame({"experiment": "a", "condition": "x", "hours_post_infection": times})
    table.loc[:2, "condition"] = "y"
    sampler = FlexibleBatchSampler(table, 16, temporal_enrichment=True, temporal_window_hours=0.0)
    for batch in epoch_of(sampler):
        assert table["condition"].iloc[batch].value_counts().to_dict() == {"x": 8, "y": 8}
    assert sampler.stats()["fallbacks"]["repeats"] == 5 * len(sampler)


def test_without_anchors_outside_the_window_the_batch_is_focal():
    table = make_table(300, 1, n_times=3)
    sampler = FlexibleBatchSampler(table, 16, temporal_enrichment=True, temporal_window_hours=50)
    assert {len(set(batch)) for batch in sampler} == {16}
    assert sampler.stats()["temporal"]["global"]["delivered"] == 0


def test_batches_of_an_epoch_have_different_focal_times():
    """Every frame of 20 has as many anchors, so each leads about as often, in each epoch another batch."""
    times = np.repeat(np.arange(20.0), 100)
    table = pd.DataFrame({"experiment": "a", "hours_post_infection": times})
    options = {"temporal_enrichment": True, "temporal_window_hours": 0.1, "temporal_global_fraction": 0.0}
    sampler = FlexibleBatchSampler(table, 10, condition_balanced=False, **options)
    focal = [[times[batch[0]] for batch in epoch_of(sampler, epoch)] for epoch in range(3)]
    assert len(set(focal[0])) == 20
    assert np.bincount(np.array(flat(focal), dtype=int)).max() < 60
    assert focal[0] != focal[1]


def test_batches_of_one_focal_time_differ():
    table = pd.DataFrame({"experiment": "a", "hours_post_infection": np.zeros(1000)})
    sampler = FlexibleBatchSampler(table, 10, condition_balanced=False, temporal_enrichment=True)
    batches = [set(batch) for batch in epoch_of(sampler)]
    assert max(len(one & other) for one, other in itertools.combinations(batches, 2)) < 5


def test_experiments_of_one_size_have_orders_of_their_own():
    table = pd.DataFrame({"experiment": np.repeat(["a", "b"], 300)})
    sampler = FlexibleBatchSampler(table, 10, condition_balanced=False)
    batches = [sorted(batch) for batch in epoch_of(sampler)]
    first, second = ([set(batch) for batch in batches if (batch[0] < 300) == own] for own in (True, False))
    assert not any({position + 300 for position in batch} in second for batch in first)


def test_an_experiment_with_none_of_the_wanted_conditions_gives_what_it_has():
    table = pd.DataFrame({"experiment": ["a"] * 60 + ["b"] * 60, "condition": ["x", "y"] * 30 + ["y", "z", "z"] * 20})
    sampler = FlexibleBatchSampler(table, 12, condition_ratio={"x": 1.0, "y": 0.0, "z": 0.0})
    for batch in sampler:
        rows = table.iloc[batch]
        expected = {"x": 12} if rows["experiment"].iloc[0] == "a" else {"z": 8, "y": 4}
        assert rows["condition"].value_counts().to_dict() == expected


def test_windows_hold_both_ends_in_spite_of_rounding():
    """0.1 * 3 is above 0.3: a frame exactly one half width away is inside."""
    times = np.arange(30) * 0.1
    table = pd.DataFrame({"experiment": "a", "hours_post_infection": np.repeat(times, 5)})
    options = {"temporal_enrichment": True, "temporal_window_hours": 0.3, "temporal_global_fraction": 0.0}
    sampler = FlexibleBatchSampler(table, 35, condition_balanced=False, **options)
    for epoch in range(20):
        for batch in epoch_of(sampler, epoch):
            frames = np.array(batch) // 5
            if 3 <= frames.min() and frames.max() <= 26:
                assert np.bincount(frames - frames.min()).tolist() == [5] * 7
    assert sampler.stats()["fallbacks"]["repeats"] == 0


def test_sparse_frames_lead_no_more_often_than_their_anchors():
    times = np.concatenate([np.zeros(900), np.arange(1.0, 101.0)])
    table = pd.DataFrame({"experiment": "a", "hours_post_infection": times})
    sampler = FlexibleBatchSampler(
        table,
        4,
        condition_balanced=False,
        temporal_enrichment=True,
        temporal_window_hours=0.4,
        temporal_global_fraction=0.0,
    )
    early = np.mean([(times[batch] == 0).sum() >= 3 for epoch in range(3) for batch in epoch_of(sampler, epoch)])
    assert early > 0.8


@pytest.mark.parametrize("temporal", [False, True])
def test_few_anchors_per_lineage(temporal):
    table = make_table(1200, 2)
    options = {"leaky": 0.2, "temporal_enrichment": temporal, "temporal_window_hours": 3.0}
    sampler = FlexibleBatchSampler(table, 30, lineage_column="lineage", max_per_lineage=1, **options)
    free = FlexibleBatchSampler(table, 30, **options)
    for number in range(10):
        rows, before = table.iloc[sampler.batch(number)], table.iloc[free.batch(number)]
        assert rows["lineage"].is_unique
        assert rows.index.is_unique
        for column in ("experiment", "condition"):
            assert rows[column].value_counts().to_dict() == before[column].value_counts().to_dict()
    assert sampler.stats()["fallbacks"]["lineage_surplus"] == 0


def test_too_few_lineages_are_counted():
    table = pd.DataFrame({"experiment": "a", "lineage": np.arange(100) % 5})
    sampler = FlexibleBatchSampler(table, 20, condition_balanced=False, lineage_column="lineage", max_per_lineage=2)
    assert len(set(sampler.batch(0).tolist())) == 20
    assert sampler.stats()["fallbacks"]["lineage_surplus"] == 10


def test_a_limit_per_lineage_that_can_be_kept_is_kept():
    """Each of 64 lineages must come exactly once into each batch of 64."""
    table = pd.DataFrame({"experiment": "a", "lineage": np.arange(1280) % 64})
    sampler = FlexibleBatchSampler(table, 64, condition_balanced=False, lineage_column="lineage", max_per_lineage=1)
    for epoch in range(10):
        for batch in epoch_of(sampler, epoch):
            assert sorted(table["lineage"].iloc[batch]) == list(range(64))
    assert set(sampler.stats()["fallbacks"].values()) == {0}


def test_rows_without_a_lineage_do_not_count_as_one():
    table = pd.DataFrame({"experiment": "a", "lineage": np.full(100, np.nan)})
    sampler = FlexibleBatchSampler(table, 20, condition_balanced=False, lineage_column="lineage", max_per_lineage=1)
    sampler.batch(0)
    assert sampler.stats()["fallbacks"]["lineage_surplus"] == 0


def most_within_the_limit(table, asked, limit):
    """Most anchors that fit, by maximum flow, one unit at a time: strata -> (strata, lineage) -> lineages.

    ``left[a][b]`` is what can still go from a to b.
    """
    left = {"source": {}, "sink": {}}
    for stratum, count in asked.items():
        rows = table[table["stratum"] == stratum]
        uses = -(-count // len(rows))
        left["source"][stratum] = count
        left[stratum] = {name: n * uses for name, n in rows["lineage"].value_counts().items()}
    for name in table["lineage"].unique():
        left[name] = {"sink": limit, **dict.fromkeys(asked, 0)}
    flow = 0
    while True:
        reached_from, waiting = {"source": None}, ["source"]
        for node in waiting:
            for target, capacity in left[node].items():
                if capacity and target not in reached_from:
                    reached_from[target] = node
                    waiting.append(target)
        if "sink" not in reached_from:
            return flow
        node, flow = "sink", flow + 1
        while (before := reached_from[node]) is not None:
            left[before][node] -= 1
            left[node][before] = left[node].get(before, 0) + 1
            node = before


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(4, 60),
    n_lineages=st.integers(1, 12),
    batch_size=st.integers(1, 24),
    limit=st.integers(1, 4),
    leaky=st.sampled_from([0.0, 0.4]),
)
def test_lineages_go_beyond_the_limit_only_where_no_filling_exists(seed, n, n_lineages, batch_size, limit, leaky):
    """Lineages here run through all experiments and conditions, so that filling one part takes from another."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "experiment": rng.choice(["e0", "e1"], n),
            "condition": rng.choice(["x", "y", "z"], n, p=[0.6, 0.3, 0.1]),
            "lineage": np.minimum(rng.geometric(0.25, n), n_lineages),
        }
    )
    options = {"batch_size": batch_size, "leaky": leaky, "seed": seed}
    free = FlexibleBatchSampler(table, **options)
    limited = FlexibleBatchSampler(table, **options, lineage_column="lineage", max_per_lineage=limit)
    table["stratum"] = table["experiment"] + table["condition"]
    surplus, repeats = 0, 0
    for number in range(min(3, free.n_batches)):
        rows = table.iloc[limited.batch(number)]
        asked = table["stratum"].iloc[free.batch(number)].value_counts()
        assert rows["stratum"].value_counts().to_dict() == asked.to_dict()
        sizes = table["stratum"].value_counts()[asked.index]
        most = -(-asked // sizes)
        for stratum, part in rows.groupby("stratum"):
            assert part.index.value_counts().max() <= most[stratum]
        here = (rows["lineage"].value_counts() - limit).clip(lower=0).sum()
        assert here == batch_size - most_within_the_limit(table, asked.to_dict(), limit)
        surplus, repeats = surplus + here, repeats + rows.index.duplicated().sum()
    fallbacks = limited.stats()["fallbacks"]
    assert (fallbacks["lineage_surplus"], fallbacks["repeats"]) == (surplus, repeats)
    assert [limited.batch(0).tolist()] == [pickle.loads(pickle.dumps(limited)).batch(0).tolist()]


def test_neighbours_join_without_changing_the_composition():
    table = make_table(1000, 2)
    position = np.random.default_rng(1).normal(size=1000)
    neighbors = np.argsort(np.abs(position[:, None] - position), axis=1)[:, 1:21]
    sampler = FlexibleBatchSampler(table, 24, leaky=0.25, neighbors=neighbors, neighbor_fraction=0.25)
    plain = FlexibleBatchSampler(table, 24, leaky=0.25)
    for number in range(20):
        batch, before = sampler.batch(number), plain.batch(number)
        assert len(set(batch.tolist())) == 24
        came = set(batch.tolist()) - set(before.tolist())
        assert len(came) == 6
        assert all(any(new in neighbors[old] for old in batch) for new in came)
        own = table["experiment"].iloc[before].mode()[0]
        assert (table["experiment"].iloc[list(came)] == own).all()
        for column in ("experiment", "condition"):
            counts = [table[column].iloc[rows].value_counts().to_dict() for rows in (batch, before)]
            assert counts[0] == counts[1]
    assert sampler.stats()["neighbors"] == {"asked": 120.0, "delivered": 120}


def test_batches_know_the_epoch_that_they_were_drawn_for():
    sampler = FlexibleBatchSampler(make_table(100), 10)
    for epoch in (0, 3):
        sampler.set_epoch(epoch)
        assert {batch.epoch for batch in sampler} == {epoch}


def test_a_near_neighbour_of_many_anchors_comes_once():
    neighbors = np.tile([5, 6, 7, 8], (200, 1))
    sampler = FlexibleBatchSampler(make_table(200), 20, neighbors=neighbors, neighbor_fraction=0.2)
    for number in range(len(sampler)):
        assert len(set(sampler.batch(number).tolist())) == 20


def test_the_nearest_of_each_anchor_come_before_the_second_nearest():
    rng = np.random.default_rng(0)
    neighbors = np.stack([rng.permutation(5000), rng.permutation(5000)], axis=1)
    table = pd.DataFrame({"experiment": np.repeat("a", 5000)})
    options = {"batch_size": 20, "condition_balanced": False}
    sampler = FlexibleBatchSampler(table, **options, neighbors=neighbors, neighbor_fraction=0.2)
    plain = FlexibleBatchSampler(table, **options)
    for number in range(10):
        before = plain.batch(number)
        came = set(sampler.batch(number).tolist()) - set(before.tolist())
        assert len(came) == 4
        assert came <= set(neighbors[before, 0].tolist())


def test_only_anchors_of_the_own_experiment_of_a_batch_have_neighbours_in_it():
    table = make_table(600, 2)
    first = (table["experiment"] == table["experiment"].iloc[0]).to_numpy()
    # The neighbours of the second experiment are cells of the first, whose own have none.
    rng = np.random.default_rng(0)
    neighbors = np.where(first[:, None], -1, rng.choice(np.flatnonzero(first), (600, 5)))
    sampler = FlexibleBatchSampler(table, 24, leaky=0.25, neighbors=neighbors, neighbor_fraction=0.25)
    plain = FlexibleBatchSampler(table, 24, leaky=0.25)
    for number in range(len(sampler)):
        assert sampler.batch(number).tolist() == plain.batch(number).tolist()
    assert sampler.stats()["neighbors"]["delivered"] == 0


def test_missing_neighbours_are_counted():
    sampler = FlexibleBatchSampler(make_table(100), 10, neighbors=np.full((100, 3), -1), neighbor_fraction=0.2)
    assert len(set(sampler.batch(0).tolist())) == 10
    assert sampler.stats()["fallbacks"]["neighbors_missing"] == 2


def test_stats_put_shares_asked_beside_shares_delivered():
    table = make_table(3000)
    sampler = FlexibleBatchSampler(table, 20, leaky=0.1)
    drawn = list(sampler)
    stats = sampler.stats()
    assert stats["batches"] == 150
    assert stats["anchors"] == 3000
    leaders = [table["experiment"].iloc[batch].mode()[0] for batch in drawn]
    for name, row in stats["experiment"].items():
        assert row["delivered"] == leaders.count(name)
        assert row["asked"] == pytest.approx((table["experiment"] == name).mean() * 150)
    assert stats["leaky"] == {"asked": pytest.approx(300), "delivered": 300}
    assert stats["condition"]["x"] == {"asked": pytest.approx(1500), "delivered": pytest.approx(1500, abs=2)}


def test_fall_backs_are_logged_once(caplog):
    sampler = FlexibleBatchSampler(make_table(40, 1, n_times=2), 32, temporal_enrichment=True)
    with caplog.at_level(logging.INFO, logger="viscy_data.sampler"):
        for epoch in range(5):
            epoch_of(sampler, epoch)
    assert len([record for record in caplog.records if "outside_window" in record.message]) == 1


def test_it_pickles_and_goes_on():
    sampler = FlexibleBatchSampler(make_table(), 16, leaky=0.1)
    sampler.set_epoch(2)
    sampler.start = 3
    copy = pickle.loads(pickle.dumps(sampler))
    assert list(copy) == list(sampler)
    assert len(list(copy)) == len(copy) - 3


def test_an_epoch_can_begin_in_the_middle():
    sampler = FlexibleBatchSampler(make_table(), 16)
    whole = [epoch_of(sampler, epoch) for epoch in (4, 5)]
    sampler.set_epoch(4)
    sampler.start = 10
    assert list(sampler) == whole[0][10:]
    assert len(sampler) == len(whole[0])
    assert epoch_of(sampler, 5) == whole[1]
    with pytest.raises(ValueError, match="start must lie between 0 and 37"):
        sampler.start = 38


def test_any_columns_will_do():
    table = make_table().rename(columns={"experiment": "plate", "condition": "drug", "hours_post_infection": "day"})
    columns = {"experiment_column": "plate", "condition_column": "drug", "time_column": "day"}
    assert len(FlexibleBatchSampler(table, 16, temporal_enrichment=True, **columns).batch(0)) == 16


def test_only_the_columns_in_use_are_needed():
    table = pd.DataFrame({"anything": range(50)})
    assert len(FlexibleBatchSampler(table, 16, experiment_aware=False, condition_balanced=False).batch(2)) == 16


def test_lightning_sees_a_distributed_sampler():
    sampler = FlexibleBatchSampler(make_table(), 16, num_replicas=None, rank=None)
    assert isinstance(sampler, DistributedSampler)
    assert sampler.sampler is sampler
    assert (sampler.num_replicas, sampler.rank) == (1, 0)


BAD = [
    ({"batch_size": 0}, "batch_size", "at least 1"),
    ({"leaky": 1.5}, "leaky", "at least 0 and below 1"),
    ({"leaky": 1.0}, "leaky", "at least 0 and below 1"),
    ({"leaky": -0.5}, "leaky", "at least 0"),
    ({"leaky": float("nan")}, "leaky", "a number"),
    ({"leaky": "0.2"}, "leaky", "a number"),
    ({"temporal_global_fraction": 2}, "temporal_global_fraction", "from 0 to 1"),
    ({"temporal_global_fraction": -1}, "temporal_global_fraction", "from 0 to 1"),
    ({"temporal_window_hours": -1}, "temporal_window_hours", "at least 0"),
    ({"experiment_weights": {"e0": 1, "E1": 1}}, "experiment_weights", "did you mean 'e1'"),
    ({"experiment_weights": {"e0": 0}}, "experiment_weights", "positive weight for one at least"),
    ({"experiment_weights": {"e0": -1, "e1": 2}}, "experiment_weights['e0']", "at least 0"),
    ({"condition_ratio": {"xx": 0.5}}, "condition_ratio", "did you mean 'x'"),
    ({"condition_ratio": {"x": 0.9, "y": 0.9}}, "condition_ratio", "add up to 1"),
    ({"condition_ratio": {"x": 0.0, "y": 0.0}}, "condition_ratio", "add up to 1"),
    ({"condition_ratio": {"x": -0.5}}, "condition_ratio['x']", "at least 0"),
    ({"max_per_lineage": 0}, "max_per_lineage", "at least 1"),
    ({"max_per_lineage": 1, "lineage_column": "lineages"}, "lineages", "did you mean 'lineage'"),
    ({"neighbor_fraction": 1.0}, "neighbor_fraction", "below 1"),
    ({"experiment_column": "experiments"}, "experiments", "did you mean 'experiment'"),
]


@pytest.mark.parametrize(("options", "field", "expected"), BAD)
def test_impossible_options_are_refused_at_construction(options, field, expected):
    with pytest.raises(InputError) as caught:
        FlexibleBatchSampler(make_table(), **{"batch_size": 16, **options})
    assert caught.value.field == field
    assert expected in caught.value.expected


def test_all_impossible_numbers_are_told_together():
    with pytest.raises(InputErrors) as caught:
        BatchPlan(batch_size=-1, leaky=7, temporal_global_fraction=-1)
    assert [error.field for error in caught.value.errors] == ["batch_size", "leaky", "temporal_global_fraction"]


MISUSED = [
    ({"num_replicas": 2, "rank": 5}, "rank must lie between 0 and"),
    ({"num_replicas": 0}, "num_replicas must be at least 1"),
    ({"seed": -1}, "seed must be at least 0"),
    ({"max_per_lineage": 1}, "needs lineage_column"),
    ({"neighbor_fraction": 0.5}, "need each other"),
    ({"neighbors": np.zeros((600, 2), dtype=int)}, "need each other"),
    ({"neighbors": np.zeros((3, 2), dtype=int), "neighbor_fraction": 0.5}, r"shape \(600, k\)"),
    ({"neighbors": np.full((600, 2), 600), "neighbor_fraction": 0.5}, "positions below 600"),
]


@pytest.mark.parametrize(("options", "message"), MISUSED)
def test_arguments_that_do_not_fit_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FlexibleBatchSampler(make_table(), **{"batch_size": 16, **options})


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({"experiment_aware": False, "leaky": 0.2}, "leaky has no effect without experiment_aware"),
        ({"experiment_aware": False, "experiment_weights": {"e0": 1}}, "experiment_weights has no effect"),
        ({"condition_balanced": False, "condition_ratio": {"x": 1}}, "condition_ratio has no effect"),
    ],
)
def test_options_whose_axis_is_off_have_no_effect_and_a_warning(options, needs):
    table = make_table()
    with pytest.warns(UserWarning, match=needs):
        sampler = FlexibleBatchSampler(table, 16, **options)
    axis = {name: value for name, value in options.items() if value is False}
    assert list(sampler) == list(FlexibleBatchSampler(table, 16, **axis))


def test_impossible_tables_are_refused():
    table = make_table(20)
    with pytest.raises(InputError, match="at least one anchor"):
        FlexibleBatchSampler(table[:0])
    late = table.assign(hours_post_infection=table["hours_post_infection"].where(table.index != 3))
    with pytest.raises(InputError, match="no finite number in 1 of 20 rows, the first at 3"):
        FlexibleBatchSampler(late, 4, temporal_enrichment=True)
    FlexibleBatchSampler(late, 4)
    with pytest.raises(InputError, match="nothing in 1 of 20 rows"):
        FlexibleBatchSampler(table.assign(experiment=table["experiment"].where(table.index != 3)), 4)


def test_numbers_beyond_the_epoch_are_refused():
    with pytest.raises(IndexError, match="no batch 37 in an epoch of 37"):
        FlexibleBatchSampler(make_table(), 16).batch(37)
    with pytest.raises(ValueError, match="epoch must be at least 0"):
        FlexibleBatchSampler(make_table(), 16).set_epoch(-1)


@pytest.mark.parametrize(
    ("options", "n_batches", "own"),
    [
        ({"batch_size": 16}, 15, 16),
        ({"batch_size": 16, "experiment_aware": False}, 15, None),
        ({"batch_size": 16, "condition_balanced": False}, 15, 16),
        ({"batch_size": 16, "temporal_enrichment": True}, 15, 16),
        ({"batch_size": 20, "temporal_enrichment": True, "temporal_window_hours": 1.0, "leaky": 0.2}, 12, 16),
        ({"batch_size": 15, "condition_ratio": {"c0": 0.7, "c1": 0.3}}, 16, 15),
        ({"batch_size": 16, "num_replicas": 2, "rank": 1, "seed": 3}, 8, 16),
    ],
)
def test_composition_of_the_reference(options, n_batches, own):
    """Numbers and sizes of batches, own and leaked counts, and shares of conditions as the reference makes them."""
    table = pd.read_csv(GOLDEN_ANCHORS)
    sampler = FlexibleBatchSampler(table, **options)
    batches = list(sampler)
    assert len(sampler) == len(batches) == n_batches
    size = options["batch_size"]
    for batch in batches:
        rows = table.iloc[batch]
        assert len(rows) == size
        if own:
            assert rows["experiment"].value_counts().iloc[0] == own
        if options.get("condition_balanced", True) and not options.get("temporal_enrichment"):
            quota = size * options.get("condition_ratio", {}).get("c0", 0.5)
            assert abs((rows["condition"] == "c0").sum() - quota) < 1


def test_every_combination_of_axes_gives_full_distinct_batches():
    table = make_table(5000)
    for aware, leaky, balanced, temporal in itertools.product([0, 1], [0.0, 0.3], [0, 1], [0, 1]):
        if leaky and not aware:
            continue
        sampler = FlexibleBatchSampler(
            table, 64, bool(aware), leaky, condition_balanced=bool(balanced), temporal_enrichment=bool(temporal)
        )
        assert {len(set(sampler.batch(number).tolist())) for number in range(20)} == {64}


def _crowded(n_fovs=12, n_frames=10, n_cells=8):
    """Two experiments of six FOVs, a condition each, rows in the order of tracks."""
    fov, _, t = (part.ravel() for part in np.indices((n_fovs, n_cells, n_frames)))
    return pd.DataFrame(
        {
            "experiment": np.where(fov < n_fovs // 2, "a", "b"),
            "fov_name": [f"A/1/{number % 6}" for number in fov],
            "t": t,
            "condition": np.where(fov % 2 == 0, "x", "y"),
            "hours_post_infection": t / 2,
        }
    )


@pytest.mark.parametrize("options", [{}, {"temporal_enrichment": True, "temporal_window_hours": 1.0}, {"leaky": 0.25}])
def test_locality_draws_from_fewer_images_and_keeps_the_other_axes(options):
    table = _crowded()
    images, shares = {}, {}
    for locality in (1, 8):
        sampler = FlexibleBatchSampler(table, 32, seed=3, locality=locality, **options)
        batches = [table.iloc[sampler.batch(number)] for number in range(sampler.n_batches)]
        assert all(len(set(batch.index)) == 32 for batch in batches)
        assert all((batch["condition"] == "x").sum() == 16 for batch in batches)
        images[locality] = np.mean([len(batch[["experiment", "fov_name", "t"]].drop_duplicates()) for batch in batches])
        shares[locality] = [int((batch["experiment"] == "a").sum()) for batch in batches]
        if not options:
            assert sampler.coverage() == 1.0
        # A batch is a function of its number alone.
        assert FlexibleBatchSampler(table, 32, seed=3, locality=locality, **options).batch(5).tolist() == list(
            batches[5].index
        )
    assert images[8] <= images[1] / 2
    assert shares[8] == shares[1]


def test_locality_needs_the_columns_that_tell_images_apart():
    with pytest.raises(InputError, match="no such column") as caught:
        FlexibleBatchSampler(_crowded().drop(columns="fov_name"), 32, locality=4)
    assert caught.value.field == "fov_name"
    with pytest.raises(InputError, match="at least 1"):
        FlexibleBatchSampler(_crowded(), 32, locality=0)
