"""Random offsets of the intensity."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch
from torch import Tensor

from viscy_transforms._batched import BatchedRandom, BatchedRandomd, as_range, per_sample

__all__ = ["BatchedRandHistogramShiftd"]


class BatchedRandHistogramShiftd(BatchedRandomd):
    """Add a random number to every sample; all keys of a sample get the same.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X).
    shift_range : pair, default (-0.1, 0.1)
        What the number is drawn from.
    prob : float, default 0.1
        Probability of each sample to be shifted.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        shift_range: tuple[float, float] = (-0.1, 0.1),
        prob: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, _HistogramShift(shift_range, prob), allow_missing_keys)


class _HistogramShift(BatchedRandom):
    takes_out = True
    block_bytes = sys.maxsize  # one pass: nothing has to stay in the cache

    def __init__(self, shift_range: tuple[float, float], prob: float) -> None:
        super().__init__(prob)
        self.shift_range = as_range("shift_range", shift_range, symmetric=True)

    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        return (self._uniform(data.shape[0], *self.shift_range),)

    def _transform(self, data: Tensor, shift: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.add(data, per_sample(shift, data), out=out)
