"""Random negatives."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from viscy_transforms._batched import BatchedRandom, BatchedRandomd

__all__ = ["RandInvertIntensityd"]

_BATCH_NDIM = 5


class RandInvertIntensityd(BatchedRandomd):
    """Negate intensities at random: one decision for all keys, per sample when there is a batch.

    Integers become float32, since not all of them have a negative.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (C, Z, Y, X), or batches (B, C, Z, Y, X).
    prob : float, default 0.1
        Probability of each sample to be inverted.
    allow_missing_keys : bool, default True
        Whether absent keys are passed over.
    """

    def __init__(self, keys: str | Iterable[str], prob: float = 0.1, allow_missing_keys: bool = True) -> None:
        super().__init__(keys, _Invert(prob), allow_missing_keys)

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Return a new dictionary in which the selected samples are inverted."""
        alone = [key for key in self.key_iterator(sample) if sample[key].ndim < _BATCH_NDIM]
        out = super().__call__({**sample, **{key: sample[key][None] for key in alone}})
        return {**out, **{key: out[key][0] for key in alone}}


class _Invert(BatchedRandom):
    takes_out = True
    block_bytes = sys.maxsize  # one pass: nothing has to stay in the cache

    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        return ()

    def _transform(self, data: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.neg(data, out=out)
