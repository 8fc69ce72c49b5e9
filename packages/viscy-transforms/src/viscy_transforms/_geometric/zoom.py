"""Resampling to another size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from monai.transforms import MapTransform, Transform
from torch import Tensor
from torch.nn.functional import interpolate

from viscy_transforms._batched import moved

__all__ = ["BatchedZoom", "BatchedZoomd"]

Mode = Literal["nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area"]


class BatchedZoom(Transform):
    """Scale the spatial axes of a batch with :func:`torch.nn.functional.interpolate`.

    Parameters
    ----------
    scale_factor : float or tuple of float
        Size of the result relative to that of the input, per spatial axis or for all.
    mode : str
        Interpolation; "trilinear" for (B, C, Z, Y, X), "bilinear" for (B, C, Y, X).
    align_corners, recompute_scale_factor : bool, optional
        See torch.
    antialias : bool, default False
        See torch.

    Notes
    -----
    Integers keep their type and value in the modes "nearest" and "nearest-exact", and become float32 in the others.
    """

    def __init__(
        self,
        scale_factor: float | tuple[float, float, float],
        mode: Mode,
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        antialias: bool = False,
    ) -> None:
        self.scale_factor = scale_factor if isinstance(scale_factor, int | float) else tuple(scale_factor)
        self.mode, self.align_corners = mode, align_corners
        self.recompute_scale_factor, self.antialias = recompute_scale_factor, antialias

    def __call__(self, sample: Tensor) -> Tensor:
        """Return a scaled copy of a batch."""
        if not sample.is_floating_point():
            if self.mode in ("nearest", "nearest-exact"):
                return moved(sample, self._pick)
            sample = sample.float()
        if not self._leaves_z(sample):
            return self._interpolate(sample, self.scale_factor, self.mode)
        # Slices then are images of their own: four neighbours count instead of eight.
        zoomed = self._interpolate(sample.flatten(0, 2)[:, None], self.scale_factor[1:], "bilinear")
        return zoomed.reshape(*sample.shape[:3], *zoomed.shape[2:])

    def _pick(self, sample: Tensor) -> Tensor:
        """Take the nearest pixel along one axis after the other; torch has no such operation for most integers."""
        n_axes = sample.ndim - 2
        factors = self.scale_factor if isinstance(self.scale_factor, tuple) else (self.scale_factor,) * n_axes
        for axis, factor in zip(range(2, sample.ndim), factors, strict=True):
            places = torch.arange(sample.shape[axis], dtype=torch.float64, device=sample.device)
            rows = self._interpolate(places[None, None], float(factor), self.mode)[0, 0].long()
            sample = sample.index_select(axis, rows)
        return sample

    def _leaves_z(self, sample: Tensor) -> bool:
        stacked = self.mode == "trilinear" and sample.ndim == 5 and sample.is_contiguous() and not self.antialias
        return stacked and isinstance(self.scale_factor, tuple) and self.scale_factor[0] == 1

    def _interpolate(self, sample: Tensor, scale_factor: float | tuple[float, ...], mode: str) -> Tensor:
        return interpolate(
            sample,
            scale_factor=scale_factor,
            mode=mode,
            align_corners=self.align_corners,
            recompute_scale_factor=self.recompute_scale_factor,
            antialias=self.antialias,
        )


class BatchedZoomd(MapTransform):
    """Dictionary form of :class:`BatchedZoom`; all keys must be there.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X).
    scale_factor, mode, align_corners, recompute_scale_factor, antialias
        See :class:`BatchedZoom`.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        scale_factor: float | tuple[float, float, float],
        mode: Mode,
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
        antialias: bool = False,
    ) -> None:
        super().__init__(keys)
        self.transform = BatchedZoom(scale_factor, mode, align_corners, recompute_scale_factor, antialias)

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a new dictionary in which the keys are scaled."""
        return {**data, **{key: self.transform(data[key]) for key in self.key_iterator(data)}}
