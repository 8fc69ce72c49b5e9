"""Random gamma correction."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from viscy_transforms._batched import BatchedRandom, BatchedRandomd, as_range, may_be_nonfinite, per_sample

__all__ = ["BatchedRandAdjustContrast", "BatchedRandAdjustContrastd"]


class BatchedRandAdjustContrast(BatchedRandom):
    """Raise the intensities of every sample, scaled to 0..1 between its extremes, to a random power.

    Parameters
    ----------
    gamma : float or pair, default (0.5, 4.5)
        The power, or the range it is drawn from, above 0.
    prob : float, default 0.1
        Probability of each sample to be changed.
    invert_image : bool, default False
        Whether to work on the negative.
    retain_stats : bool, default False
        Whether to restore mean and standard deviation of the sample.

    Raises
    ------
    ValueError
        If gamma is neither a number nor a pair, or not above 0.
    """

    def __init__(
        self,
        gamma: tuple[float, float] | float = (0.5, 4.5),
        prob: float = 0.1,
        invert_image: bool = False,
        retain_stats: bool = False,
    ) -> None:
        super().__init__(prob)
        self.gamma = as_range("gamma", gamma)
        if self.gamma[0] <= 0:
            raise ValueError(f"gamma is {gamma}, expected values above 0")
        self.invert_image, self.retain_stats = invert_image, retain_stats

    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        return (self._uniform(data.shape[0], *self.gamma),)

    def _transform(self, data: Tensor, gamma: Tensor) -> Tensor:
        x = -data if self.invert_image else data
        low, high = _extremes(x.flatten(1))
        low, extent = per_sample(low, x), per_sample(high - low, x)
        share = _power((x - low).div_(extent + 1e-7), per_sample(gamma, x))
        out = torch.addcmul(low, share, extent)
        if self.retain_stats:
            out = _with_stats(out, *_stats(x))
        return -out if self.invert_image else out


class BatchedRandAdjustContrastd(BatchedRandomd):
    """Dictionary form of :class:`BatchedRandAdjustContrast`: all keys of a sample get the same gamma.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X).
    gamma, prob, invert_image, retain_stats
        See :class:`BatchedRandAdjustContrast`.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        gamma: tuple[float, float] | float = (0.5, 4.5),
        prob: float = 0.1,
        invert_image: bool = False,
        retain_stats: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        transform = BatchedRandAdjustContrast(gamma, prob, invert_image, retain_stats)
        super().__init__(keys, transform, allow_missing_keys)


def _power(x: Tensor, exponent: Tensor) -> Tensor:
    """Raise numbers from 0 to 1 to a power, in place unless a gradient is wanted."""
    # Through logarithms in half the time; a gradient would be NaN at 0.
    return x.pow(exponent) if x.requires_grad else x.log_().mul_(exponent).exp_()


def _extremes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the extremes of each row, NaN left out."""
    if not may_be_nonfinite(x):
        return x.amin(1), x.amax(1)  # several times faster than aminmax on a CPU
    low, high = (torch.where(x.isnan(), bound, x) for bound in (torch.inf, -torch.inf))
    return low.amin(1), high.amax(1)


def _stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each sample, NaN left out."""
    rows = x.flatten(1)
    if may_be_nonfinite(rows):
        mean = rows.nanmean(1, keepdim=True)
        freedom = (~rows.isnan()).sum(1) - 1
        std, mean = ((rows - mean).square().nansum(1) / freedom).sqrt(), mean.squeeze(1)
    else:
        std, mean = torch.std_mean(rows, dim=1)
    return per_sample(mean, x), per_sample(std, x)


def _with_stats(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    found_mean, found_std = _stats(x)
    return torch.addcmul(mean, x - found_mean, std / (found_std + 1e-8))
