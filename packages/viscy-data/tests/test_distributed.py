import json
import pickle
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from viscy_data.distributed import (
    EpochPositions,
    SequentialBatchSampler,
    ShardedDistributedSampler,
    ShuffledBatchSampler,
    World,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sharded_distributed.json").read_text())


def flat(lists):
    return [item for part in lists for item in part]


def shards(n, size, epoch=0, **options):
    out = []
    for rank in range(size):
        sampler = ShardedDistributedSampler(range(n), size, rank, **options)
        sampler.set_epoch(epoch)
        out.append(list(sampler))
        assert len(out[-1]) == len(sampler)
    return out


def test_a_lone_process_is_detected():
    assert World.detect() == World(1, 0)


@pytest.mark.parametrize(("size", "rank"), [(0, 0), (2, 2), (2, 5), (1, -1)])
def test_impossible_worlds_are_refused(size, rank):
    with pytest.raises(ValueError, match="num_replicas"):
        World(size, rank)


@pytest.mark.parametrize("case", GOLDEN)
def test_orders_of_the_reference(case):
    options = {name: case[name] for name in ("shuffle", "drop_last", "seed")}
    found = shards(case["n"], case["num_replicas"], case["epoch"], **options)
    if case["shuffle"] and case["drop_last"] and case["epoch"]:
        # these shards move on, so that no item is left out for ever
        left_out = case["n"] % case["num_replicas"] * case["epoch"]
        assert found == [[(i + left_out) % case["n"] for i in rank] for rank in case["per_rank"]]
    else:
        assert found == case["per_rank"]


@pytest.mark.parametrize(("n", "size"), [(10, 3), (23, 4), (7, 5)])
def test_no_item_is_left_out_in_every_epoch(n, size):
    seen = [flat(shards(n, size, epoch, drop_last=True)) for epoch in range(n)]
    assert all(len(set(epoch)) == len(epoch) == n // size * size for epoch in seen)
    counts = [sum(item in epoch for epoch in seen) for item in range(n)]
    assert len(set(counts)) == 1


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 60), size=st.integers(1, 8), epoch=st.integers(0, 3))
def test_without_drop_last_every_item_is_used_on_equal_ranks(n, size, epoch):
    if n < size:
        return
    found = shards(n, size, epoch)
    assert set(flat(found)) == set(range(n))
    assert len({len(rank) for rank in found}) == 1


@settings(deadline=None, max_examples=50)
@given(n=st.integers(0, 60), batch_size=st.integers(1, 9), size=st.integers(1, 8))
def test_sequential_batches_pad_to_equal_ranks(n, batch_size, size):
    lone = list(SequentialBatchSampler(n, batch_size))
    assert flat(lone) == list(range(n))
    samplers = [SequentialBatchSampler(n, batch_size, size, rank) for rank in range(size)]
    ranks = [list(sampler) for sampler in samplers]
    assert {len(rank) for rank in ranks} == {len(sampler) for sampler in samplers} == {len(ranks[0])}
    dealt = [batch for turn in zip(*ranks, strict=True) for batch in turn]
    assert dealt[: len(lone)] == lone
    assert all(batch in lone for batch in dealt)


@settings(deadline=None, max_examples=50)
@given(n=st.integers(0, 60), batch_size=st.integers(1, 9), size=st.integers(1, 8), start=st.integers(0, 20))
def test_sequential_batches_unpadded_are_the_whole_once(n, batch_size, size, start):
    found, resumed = [], []
    for rank in range(size):
        sampler = SequentialBatchSampler(n, batch_size, size, rank, pad=False)
        assert len(sampler) == len(list(sampler))
        part = flat(sampler)
        found += part
        again = SequentialBatchSampler(n, batch_size, size, rank, pad=False, start=start)
        assert len(again) == len(list(again))
        resumed.append(flat(again) == part[start:])
    assert found == list(range(n))
    assert all(resumed)


def test_they_are_distributed_samplers_by_type():
    assert isinstance(SequentialBatchSampler(3, 1), DistributedSampler)
    sampler = SequentialBatchSampler(3, 1, None, None)
    sampler.set_epoch(3)
    assert list(sampler) == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch_size": 0}, "batch_size"), ({"start": -1}, "start"), ({"start": 2, "pad": True}, "pad=False")],
)
def test_bad_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SequentialBatchSampler(**{"n": 4, "batch_size": 2, **options})


def shuffled(n, batch_size, size=1, rank=0, **options):
    return ShuffledBatchSampler(n, batch_size, size, rank, **options)


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 40), batch_size=st.integers(1, 9), size=st.integers(1, 4), drop_last=st.booleans())
def test_shuffled_batches_are_those_of_a_lone_process_dealt_out_in_turn(n, batch_size, size, drop_last):
    alone = list(shuffled(n, batch_size, drop_last=drop_last))
    n_used = n if not drop_last or n < batch_size else n // batch_size * batch_size
    assert len(flat(alone)) == len(set(flat(alone))) == n_used
    ranks = [list(shuffled(n, batch_size, size, rank, drop_last=drop_last)) for rank in range(size)]
    assert {len(rank) for rank in ranks} == {len(shuffled(n, batch_size, size, drop_last=drop_last))}
    dealt = flat(zip(*ranks, strict=True))
    assert dealt == [alone[turn % len(alone)] for turn in range(len(dealt))]


@settings(deadline=None, max_examples=100)
@given(
    n=st.integers(1, 40),
    batch_size=st.integers(1, 5),
    drop_last=st.booleans(),
    parts=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=4),
)
@example(n=20, batch_size=2, drop_last=True, parts=[(2, 1), (1, 3), (2, 1), (3, 1), (2, 1)])
def test_an_epoch_goes_on_with_another_number_of_ranks_from_where_it_was(n, batch_size, drop_last, parts):
    left = alone = list(shuffled(n, batch_size, drop_last=drop_last))
    start = 0
    for size, n_steps in parts:  # steps of that many ranks each
        ranks = [shuffled(n, batch_size, size, rank, drop_last=drop_last) for rank in range(size)]
        for sampler in ranks:
            sampler.start = start
        orders, rounds = [list(sampler) for sampler in ranks], []
        queue = left + size * alone  # where the epoch ends within a round, it is filled up from the beginning
        while len(rounds) * size < len(left):
            rounds.append([queue.pop(0) for _ in range(size)])
        assert list(map(list, zip(*orders, strict=True))) == rounds
        assert {len(sampler) - sampler.start_batch for sampler in ranks} == {len(rounds)}
        n_made = min(size * n_steps, len(left))
        left, start = left[n_made:], start + n_made
        if not left:
            return


def test_shuffled_batches_know_their_epoch_and_can_begin_in_the_middle():
    sampler = shuffled(20, 4, seed=3)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert all(batch.epoch == epoch for batch in sampler)
    assert epochs[0] != epochs[1]
    assert flat(epochs[0]) != flat(list(shuffled(20, 4, seed=4)))
    sampler.start = 2
    assert list(sampler) == epochs[1][2:]
    sampler.set_epoch(0)
    assert list(sampler) == epochs[0]
    with pytest.raises(ValueError, match="start must lie between 0 and 5"):
        sampler.start = 6
    with pytest.raises(ValueError, match="epoch"):
        sampler.set_epoch(-1)
    with pytest.raises(ValueError, match="n and batch_size"):
        shuffled(0, 4)


def test_positions_take_their_epoch_to_another_process():
    positions = pickle.loads(pickle.dumps(EpochPositions([2, 0], epoch=7)))
    assert (positions, positions.epoch) == ([2, 0], 7)
