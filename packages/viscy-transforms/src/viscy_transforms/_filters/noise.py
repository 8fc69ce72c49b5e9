"""Additive Gaussian noise."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from monai.utils import get_equivalent_dtype
from numpy.typing import DTypeLike
from torch import Tensor

from viscy_transforms._batched import BatchedRandom, BatchedRandomd, per_sample

__all__ = ["BatchedRandGaussianNoise", "BatchedRandGaussianNoised"]


class BatchedRandGaussianNoise(BatchedRandom):
    """Add Gaussian noise to samples, each with its own pattern.

    Parameters
    ----------
    prob : float, default 0.1
        Probability of each sample to get noise.
    mean : float, default 0.0
        Mean of the noise.
    std : float, default 0.1
        Standard deviation of the noise, or its upper bound.
    dtype : dtype, optional
        Of the result; that of the input by default (float32 for integers).
    sample_std : bool, default True
        Whether the standard deviation of each sample is drawn from (0, ``std``).

    Raises
    ------
    ValueError
        If ``std`` is negative.
    """

    needs_field = takes_out = True
    block_bytes = 2 << 20

    def __init__(
        self,
        prob: float = 0.1,
        mean: float = 0.0,
        std: float = 0.1,
        dtype: DTypeLike = None,
        sample_std: bool = True,
    ) -> None:
        super().__init__(prob)
        if std < 0:
            raise ValueError(f"std is {std}, expected 0 or more")
        self.mean, self.std, self.sample_std = mean, std, sample_std
        self.dtype = None if dtype is None else get_equivalent_dtype(dtype, Tensor)

    def __call__(self, data: Tensor, randomize: bool = True) -> Tensor:
        """Add noise; see :meth:`BatchedRandom.__call__`."""
        out = super().__call__(data, randomize)
        return out if self.dtype is None else out.to(self.dtype)

    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        n = data.shape[0]
        return (self._uniform(n, 0.0, self.std) if self.sample_std else torch.full((n,), float(self.std)),)

    def _transform(self, data: Tensor, std: Tensor, out: Tensor | None = None) -> Tensor:
        # Numbers are drawn in the order of memory, which must not differ between keys.
        fresh = out is None or not out.is_contiguous()
        noise = torch.empty(data.shape, device=data.device, dtype=data.dtype) if fresh else out
        noise.normal_(generator=self._field)
        noise.mul_(per_sample(std, data))
        return (noise.add_(self.mean) if self.mean else noise).add_(data)


class BatchedRandGaussianNoised(BatchedRandomd):
    """Dictionary form of :class:`BatchedRandGaussianNoise`: all keys of a sample get the same noise.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X).
    prob, mean, std, dtype
        See :class:`BatchedRandGaussianNoise`.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    sample_std : bool, default True
        Whether the standard deviation of each sample is drawn from (0, ``std``).
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        prob: float = 0.1,
        mean: float = 0.0,
        std: float = 0.1,
        dtype: DTypeLike = None,
        allow_missing_keys: bool = False,
        sample_std: bool = True,
    ) -> None:
        super().__init__(keys, BatchedRandGaussianNoise(prob, mean, std, dtype, sample_std), allow_missing_keys)
