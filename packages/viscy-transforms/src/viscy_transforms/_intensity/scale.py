"""Random scaling of intensities."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch
from torch import Tensor

from viscy_transforms._batched import BatchedRandom, BatchedRandomd, as_range, per_sample

__all__ = ["BatchedRandScaleIntensity", "BatchedRandScaleIntensityd"]


class BatchedRandScaleIntensity(BatchedRandom):
    """Multiply every sample by 1 + f with a random f.

    Parameters
    ----------
    factors : float or pair, default 0.1
        Range of f; a number stands for (-f, f).
    prob : float, default 0.1
        Probability of each sample to be changed.
    channel_wise : bool, default False
        Whether every channel gets its own f.
    """

    takes_out = True
    block_bytes = sys.maxsize  # one pass: nothing has to stay in the cache

    def __init__(
        self, factors: tuple[float, float] | float = 0.1, prob: float = 0.1, channel_wise: bool = False
    ) -> None:
        super().__init__(prob)
        self.factors, self.channel_wise = as_range("factors", factors, symmetric=True), channel_wise

    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        return (self._uniform(tuple(data.shape[: 2 if self.channel_wise else 1]), *self.factors),)

    def _transform(self, data: Tensor, factor: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.mul(data, per_sample(1 + factor, data), out=out)


class BatchedRandScaleIntensityd(BatchedRandomd):
    """Dictionary form of :class:`BatchedRandScaleIntensity`: all keys of a sample get the same factor.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X).
    factors, prob, channel_wise
        See :class:`BatchedRandScaleIntensity`.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        factors: tuple[float, float] | float = 0.1,
        prob: float = 0.1,
        channel_wise: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, BatchedRandScaleIntensity(factors, prob, channel_wise), allow_missing_keys)
