"""Ranks that tell each other of a signal, but not after every step: asking makes the device wait for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from lightning.pytorch import Trainer

__all__ = ["Agreement"]

_SECONDS, _MOST_STEPS = 1.0, 100


class Agreement:
    """What the largest number is that any rank has, found out about once a second.

    Each time the ranks agree as well on how many steps make a second, of the slowest of them: all have to ask after the
    same step. A lone process has nobody to ask.

    Parameters
    ----------
    clock : callable, optional
        Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._n_steps = self._left = 1
        self._asked: float | None = None

    def largest(self, trainer: Trainer, own: int) -> int:
        """Return the largest number of all ranks after a step, or 0 where they do not ask each other after this one."""
        if trainer.world_size == 1:
            return own
        self._left -= 1
        if self._left:
            return 0
        now = self._clock()
        took = _SECONDS if self._asked is None else (now - self._asked) / self._n_steps
        mine = torch.tensor([own, took], device=trainer.strategy.root_device)
        largest, slowest = trainer.strategy.reduce(mine, reduce_op="max").tolist()
        self._asked = now
        self._n_steps = self._left = int(min(max(_SECONDS / max(slowest, 1e-9), 1), _MOST_STEPS))
        return int(largest)
