"""Random Gaussian blur."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from viscy_transforms._batched import BatchedRandom, BatchedRandomd, as_range, may_be_nonfinite

__all__ = ["BatchedRandGaussianSmooth", "BatchedRandGaussianSmoothd", "gaussian_blur"]

_BORDERS = ("constant", "reflect", "replicate", "circular")


class BatchedRandGaussianSmooth(BatchedRandom):
    """Blur every sample with a Gaussian of random width per axis.

    Parameters
    ----------
    sigma_x, sigma_y, sigma_z : float or pair, default (1.0, 3.0)
        Standard deviation along X (the last axis), Y and Z in pixels, or the range it is drawn from; 0 leaves the axis
        alone. A single slice is not blurred along Z.
    truncated : float, default 4.0
        Where the kernel ends, in standard deviations.
    prob : float, default 0.5
        Probability of each sample to be blurred.
    border_type : {"constant", "reflect", "replicate", "circular"}, default "constant"
        What lies outside of the image; "constant" is 0.

    Raises
    ------
    ValueError
        If a sigma is negative or no range, ``truncated`` is not positive, or the border is unknown.

    Notes
    -----
    The kernel is the Gaussian integrated over each pixel, cut off and normalised. Each axis is one product with a
    banded matrix per sample, which holds the kernel and the border, so that samples may differ in width at no cost.
    What is not finite makes NaN of the pixels that its kernel reaches, and of no other.
    """

    def __init__(
        self,
        sigma_x: tuple[float, float] | float = (1.0, 3.0),
        sigma_y: tuple[float, float] | float = (1.0, 3.0),
        sigma_z: tuple[float, float] | float = (1.0, 3.0),
        truncated: float = 4.0,
        prob: float = 0.5,
        border_type: Literal["constant", "reflect", "replicate", "circular"] = "constant",
    ) -> None:
        super().__init__(prob)
        ranges = {"sigma_x": sigma_x, "sigma_y": sigma_y, "sigma_z": sigma_z}
        self.sigmas = tuple(as_range(name, value) for name, value in ranges.items())
        for (name, value), (low, _) in zip(ranges.items(), self.sigmas, strict=True):
            if low < 0:
                raise ValueError(f"{name} is {value}, expected 0 or more")
        if truncated <= 0:
            raise ValueError(f"truncated is {truncated}, expected a number above 0")
        if border_type not in _BORDERS:
            raise ValueError(f"border_type is {border_type!r}, expected one of {', '.join(_BORDERS)}")
        self.truncated, self.border_type = truncated, border_type

    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._uniform(data.shape[0], *pair) for pair in self.sigmas[: data.ndim - 2])

    def _transform(self, data: Tensor, *sigmas: Tensor) -> Tensor:
        for axis, (sigma, (_, largest)) in enumerate(zip(sigmas, self.sigmas, strict=False), start=1):
            single_slice = axis == 3 and data.shape[-axis] == 1
            if largest > 0 and not single_slice:
                data = gaussian_blur(data, sigma, -axis, largest, self.truncated, self.border_type)
        return data


class BatchedRandGaussianSmoothd(BatchedRandomd):
    """Dictionary form of :class:`BatchedRandGaussianSmooth`: all keys of a sample are blurred alike.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X).
    sigma_x, sigma_y, sigma_z, truncated, prob, border_type
        See :class:`BatchedRandGaussianSmooth`.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        sigma_x: tuple[float, float] | float = (1.0, 3.0),
        sigma_y: tuple[float, float] | float = (1.0, 3.0),
        sigma_z: tuple[float, float] | float = (1.0, 3.0),
        truncated: float = 4.0,
        prob: float = 0.5,
        border_type: Literal["constant", "reflect", "replicate", "circular"] = "constant",
        allow_missing_keys: bool = False,
    ) -> None:
        transform = BatchedRandGaussianSmooth(sigma_x, sigma_y, sigma_z, truncated, prob, border_type)
        super().__init__(keys, transform, allow_missing_keys)


def gaussian_blur(
    data: Tensor, sigma: Tensor, axis: int, largest: float, truncated: float = 4.0, border: str = "constant"
) -> Tensor:
    """Blur one spatial axis, each sample with its own width.

    Parameters
    ----------
    data : Tensor, shape (B, C, Z, Y, X) or (B, C, Y, X)
        Floating point.
    sigma : Tensor, shape (B,)
        Standard deviations in pixels.
    axis : int
        -1 (X), -2 (Y) or -3 (Z).
    largest : float
        A bound of ``sigma``, known without asking the device.
    truncated : float, default 4.0
        Where the kernel ends, in standard deviations.
    border : str, default "constant"
        See :class:`BatchedRandGaussianSmooth`.

    Returns
    -------
    Tensor
        A new tensor.
    """
    radius = int(max(largest * truncated, 0.5) + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=data.device, dtype=data.dtype)
    reach = torch.floor((sigma * truncated).clamp(min=0.5) + 0.5)
    kernel = _gaussian(sigma[:, None], offsets) * (offsets.abs() <= reach[:, None])  # (B, k)
    matrix = _banded(kernel / kernel.sum(1, keepdim=True), data.shape[axis], border)  # (B, out, in)
    if not may_be_nonfinite(data):
        return _product(matrix, data, axis)
    # In a product, NaN times the zeros outside of the band would fill the whole line.
    finite = data.isfinite()
    reached = _product((matrix != 0).to(data.dtype), (~finite).to(data.dtype), axis) > 0
    return _product(matrix, torch.where(finite, data, 0), axis).masked_fill(reached, torch.nan)


def _product(matrix: Tensor, data: Tensor, axis: int) -> Tensor:
    """Multiply every line along an axis by the matrix (B, out, in) of its sample."""
    if axis == -1:
        return torch.matmul(data.flatten(1, -2), matrix.mT).reshape(data.shape)
    columns = data.flatten(axis + 1)  # (B, C[, Z], in, rest)
    matrix = matrix.reshape(len(matrix), *(1,) * (columns.ndim - 3), *matrix.shape[1:])
    return torch.matmul(matrix, columns).reshape(data.shape)


def _gaussian(sigma: Tensor, offsets: Tensor) -> Tensor:
    """Integrate the Gaussian over pixels; a sigma of 0 is the identity."""
    scale = 0.5**0.5 / sigma
    return 0.5 * (torch.erf(scale * (offsets + 0.5)) - torch.erf(scale * (offsets - 0.5)))


def _banded(kernel: Tensor, size: int, border: str) -> Tensor:
    """Write kernels (B, k) into matrices (B, size, size) that convolve an axis of that size."""
    radius = kernel.shape[1] // 2
    source = torch.arange(size, device=kernel.device)[:, None] + torch.arange(-radius, radius + 1, device=kernel.device)
    weights = kernel[:, None, :].expand(-1, size, -1)
    if border == "constant":
        weights = weights * ((source >= 0) & (source < size))
    if border == "circular":
        source = source % size
    if border == "reflect":
        period = max(2 * (size - 1), 1)
        source = source % period
        source = torch.minimum(source, period - source)
    source = source.clamp(0, size - 1).expand(len(kernel), -1, -1)
    return kernel.new_zeros(len(kernel), size, size).scatter_add_(2, source, weights)
