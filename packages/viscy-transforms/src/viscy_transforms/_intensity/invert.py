"""Random negatives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from viscy_transforms._batched import per_sample

__all__ = ["RandInvertIntensityd"]


class RandInvertIntensityd(MapTransform, RandomizableTransform):
    """Negate intensities at random: one decision for all keys, per sample when there is a batch.

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
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Return a new dictionary in which the selected samples are inverted."""
        out = dict(sample)
        keys = list(self.key_iterator(out))
        n = {out[key].shape[0] if out[key].ndim == 5 else 1 for key in keys}
        if len(n) > 1:
            raise ValueError(f"keys {keys} hold batches of different sizes {sorted(n)}")
        signs = [-1 if self.R.rand() < self.prob else 1 for _ in range(max(n, default=0))]
        for key in keys:
            out[key] = _times(out[key], signs)
        return out


def _times(x: Tensor, signs: list[int]) -> Tensor:
    if len(set(signs)) == 1:
        return x if signs[0] == 1 else -x
    return x * per_sample(torch.tensor(signs, dtype=x.dtype).to(x.device, non_blocking=True), x)
