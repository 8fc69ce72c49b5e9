"""Ranks find out about a signal within about a second, and ask each other no more often than that."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import pytest
import torch

from viscy_utils.runs.agreement import Agreement


class Ranks:
    """Ranks in threads; one that asks alone breaks the barrier."""

    def __init__(self, *seconds_of_a_step):
        self.seconds, self.n_asked = seconds_of_a_step, 0
        self._barrier, self._given = Barrier(len(self.seconds), timeout=5), {}

    def run(self, n_steps, signal_at=None):
        """Return the step after which each rank stops, and the signal that it then knows, or what there was to do."""
        with ThreadPoolExecutor(len(self.seconds)) as pool:
            ranks = range(len(self.seconds))
            return list(pool.map(lambda rank: self._steps(rank, n_steps, signal_at), ranks))

    def _steps(self, rank, n_steps, signal_at):
        now = 0.0
        agreement = Agreement(clock=lambda: now)
        strategy = SimpleNamespace(root_device="cpu", reduce=lambda tensor, reduce_op: self._largest(rank, tensor))
        trainer = SimpleNamespace(world_size=len(self.seconds), strategy=strategy)
        for step in range(1, n_steps + 1):
            now += self.seconds[rank]
            is_told = rank == len(self.seconds) - 1 and signal_at is not None and step >= signal_at
            if number := agreement.largest(trainer, 15 if is_told else 0):
                return step, number
        return n_steps, 0

    def _largest(self, rank, tensor):
        self._given[rank] = tensor
        if self._barrier.wait() == 0:
            self.n_asked += 1
        largest = torch.stack(list(self._given.values())).amax(0)
        self._barrier.wait()
        return largest


@pytest.mark.parametrize(
    ("seconds", "n_asked"),
    [((0.1, 0.1), 11), ((0.001, 0.001), 2), ((0.05, 0.25), 26), ((3.0, 3.0, 3.0), 100)],
)
def test_a_hundred_steps_have_few_collectives(seconds, n_asked):
    ranks = Ranks(*seconds)
    assert ranks.run(100) == [(100, 0)] * len(seconds)
    assert ranks.n_asked <= n_asked + 1


@pytest.mark.parametrize("seconds", [(0.1, 0.1), (0.02, 0.3), (0.004, 0.01, 0.007), (2.0, 2.0)])
@pytest.mark.parametrize("signal_at", [1, 2, 37])
def test_all_ranks_stop_after_the_same_step_soon_after_the_signal(seconds, signal_at):
    found = Ranks(*seconds).run(1000, signal_at)
    step, _ = found[0]
    assert found == [(step, 15)] * len(seconds)
    assert 0 <= (step - signal_at) * max(seconds) <= 1.0


def test_a_lone_process_stops_at_once_and_asks_nobody():
    ranks = Ranks(0.001)
    assert ranks.run(1000, signal_at=37) == [(37, 15)]
    assert ranks.n_asked == 0
