"""Scaling of intensities between percentiles of each sample."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from monai.transforms import MapTransform, Transform
from monai.utils import get_equivalent_dtype
from numpy.typing import DTypeLike
from torch import Tensor

from viscy_transforms._batched import in_float, may_be_nonfinite

__all__ = ["BatchedScaleIntensityRangePercentiles", "BatchedScaleIntensityRangePercentilesd"]


class BatchedScaleIntensityRangePercentiles(Transform):
    """Map the range between two percentiles of every sample to a given range.

    Parameters
    ----------
    lower, upper : float
        Percentiles, 0 to 100.
    b_min, b_max : float or None
        What they are mapped to; (0, 1) if either is None.
    clip : bool, default False
        Whether values outside are set to ``b_min`` and ``b_max``.
    relative : bool, default False
        Whether ``lower`` and ``upper`` per cent of (``b_min``, ``b_max``) are mapped to, instead of its ends.
    channel_wise : bool, default False
        Whether every channel has percentiles of its own.
    dtype : dtype, optional
        Of the result; that of the input by default (float32 for integers).

    Raises
    ------
    ValueError
        If the percentiles are no percentiles, or ``relative`` or ``clip`` lack a bound.

    Notes
    -----
    A sample whose two percentiles are equal is shifted by them and not scaled; its neighbours are not affected. A NaN
    stays in place and is no part of the percentiles.
    """

    def __init__(
        self,
        lower: float,
        upper: float,
        b_min: float | None,
        b_max: float | None,
        clip: bool = False,
        relative: bool = False,
        channel_wise: bool = False,
        dtype: DTypeLike = None,
    ) -> None:
        if not 0.0 <= lower <= upper <= 100.0:
            raise ValueError(f"found percentiles {lower} and {upper}, expected 0 <= lower <= upper <= 100")
        if relative and (b_min is None or b_max is None):
            raise ValueError("relative=True needs both b_min and b_max")
        if clip and b_min is None and b_max is None:
            raise ValueError("clip=True needs b_min or b_max")
        self.lower, self.upper, self.b_min, self.b_max = lower, upper, b_min, b_max
        if relative:
            self.b_min, self.b_max = (b_min + (b_max - b_min) * q / 100 for q in (lower, upper))
        self.clip, self.channel_wise = clip, channel_wise
        self.dtype = None if dtype is None else get_equivalent_dtype(dtype, torch.Tensor)

    def __call__(self, img: Tensor) -> Tensor:
        """Return a scaled copy of ``img``, shape (B, C, Z, Y, X) or (B, C, Y, X)."""
        x = in_float(img)
        kept = 2 if self.channel_wise else 1
        a_min, a_max = _percentiles(x.flatten(kept), (self.lower, self.upper))
        shape = (*a_min.shape, *(1,) * (x.ndim - kept))
        a_min, extent = a_min.reshape(shape), (a_max - a_min).reshape(shape)
        flat = extent == 0
        out = (x - a_min).div_(torch.where(flat, 1, extent))
        if self.b_min is not None and self.b_max is not None:
            out.mul_(torch.where(flat, 1, self.b_max - self.b_min)).add_(self.b_min)
        elif self.b_min is not None:
            out.add_(torch.where(flat, self.b_min, 0))
        if self.clip:
            out.clamp_(self.b_min, self.b_max)
        return out.to(self.dtype or (img.dtype if img.is_floating_point() else out.dtype))


class BatchedScaleIntensityRangePercentilesd(MapTransform):
    """Dictionary form of :class:`BatchedScaleIntensityRangePercentiles`.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X).
    lower, upper, b_min, b_max, clip, relative, channel_wise, dtype
        See :class:`BatchedScaleIntensityRangePercentiles`.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        lower: float,
        upper: float,
        b_min: float | None,
        b_max: float | None,
        clip: bool = False,
        relative: bool = False,
        channel_wise: bool = False,
        dtype: DTypeLike = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scaler = BatchedScaleIntensityRangePercentiles(
            lower, upper, b_min, b_max, clip, relative, channel_wise, dtype
        )

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a new dictionary in which the keys are scaled."""
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self.scaler(out[key])
        return out


def _percentiles(x: Tensor, percentiles: tuple[float, float]) -> list[Tensor]:
    """Return linearly interpolated percentiles of each row, NaN left out; a row may be too long for torch.quantile."""
    if x.requires_grad or may_be_nonfinite(x):
        return _percentiles_by_sorting(x, percentiles)
    last = x.shape[-1] - 1
    places = [q / 100 * last for q in percentiles]
    below = [int(place) for place in places]
    above = [min(rank + 1, last) for rank in below]
    found = _ranked(x, sorted({*below, *above}))
    return [
        torch.lerp(found[low], found[high], place - low) for place, low, high in zip(places, below, above, strict=True)
    ]


def _ranked(x: Tensor, ranks: list[int]) -> dict[int, Tensor]:
    """Return the numbers of each row that have these ranks."""

    def pick(rows: np.ndarray) -> np.ndarray:
        # A partition puts only these ranks in their places, in a third of the time of sorting.
        return np.partition(rows, ranks, axis=-1)[:, ranks]

    n_threads = torch.get_num_threads()
    with ThreadPoolExecutor(n_threads) as pool:  # numpy lets go of the lock while it partitions
        parts = list(pool.map(pick, np.array_split(x.flatten(0, -2).numpy(), n_threads)))
    columns = torch.from_numpy(np.concatenate(parts)).unbind(1)
    return {rank: column.reshape(x.shape[:-1]) for rank, column in zip(ranks, columns, strict=True)}


def _percentiles_by_sorting(x: Tensor, percentiles: tuple[float, float]) -> list[Tensor]:
    ordered = x.sort(dim=-1).values  # NaN last
    last = (x.shape[-1] - 1 - x.isnan().sum(-1, keepdim=True)).clamp(min=0)
    out = []
    for q in percentiles:
        place = q / 100 * last.double()
        below = place.long()
        above = torch.minimum(below + 1, last)
        low, high = (ordered.gather(-1, rank) for rank in (below, above))
        out.append(torch.lerp(low, high, (place - below).to(x.dtype)).squeeze(-1))
    return out
