"""Random elastic deformation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from viscy_transforms._batched import BatchedRandom, BatchedRandomd, as_range, per_sample
from viscy_transforms._filters.gaussian_smooth import gaussian_blur

__all__ = ["BatchedRand3DElasticd"]


class BatchedRand3DElasticd(BatchedRandomd):
    """Warp every sample by a smooth random field; all keys of a sample are warped alike.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X) and the same spatial size.
    sigma_range : pair
        Range of the standard deviation of the Gaussian that smooths the field, in pixels.
    magnitude_range : pair
        Range of the standard deviation of the displacement before smoothing, in pixels of each axis.
    spatial_size : None
        Refused otherwise: the size of the image is kept.
    prob : float, default 0.1
        Probability of each sample to be warped.
    mode : {"bilinear", "nearest"}, default "bilinear"
        Interpolation.
    padding_mode : {"zeros", "border", "reflection"}, default "reflection"
        What lies outside of the image.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.

    Notes
    -----
    A single slice is only warped within its plane.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        sigma_range: tuple[float, float],
        magnitude_range: tuple[float, float],
        spatial_size: tuple[int, int, int] | int | None = None,
        prob: float = 0.1,
        mode: Literal["bilinear", "nearest"] = "bilinear",
        padding_mode: Literal["zeros", "border", "reflection"] = "reflection",
        allow_missing_keys: bool = False,
    ) -> None:
        if spatial_size is not None:
            raise ValueError(f"spatial_size is {spatial_size}; the size is kept, crop or zoom with another transform")
        super().__init__(keys, _Elastic(sigma_range, magnitude_range, prob, mode, padding_mode), allow_missing_keys)


class _Elastic(BatchedRandom):
    needs_field = True

    def __init__(
        self,
        sigma_range: tuple[float, float],
        magnitude_range: tuple[float, float],
        prob: float,
        mode: str,
        padding_mode: str,
    ) -> None:
        super().__init__(prob)
        self.sigma, self.magnitude = as_range("sigma_range", sigma_range), as_range("magnitude_range", magnitude_range)
        if self.sigma[0] < 0:
            raise ValueError(f"sigma_range is {sigma_range}, expected 0 or more")
        self.mode, self.padding_mode = mode, padding_mode

    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        if data.ndim != 5:
            raise ValueError(f"an elastic warp needs a batch (B, C, Z, Y, X), found the shape {tuple(data.shape)}")
        n = data.shape[0]
        return self._uniform(n, *self.sigma), self._uniform(n, *self.magnitude)

    def _transform(self, data: Tensor, sigma: Tensor, magnitude: Tensor) -> Tensor:
        shape = data.shape[2:]
        identity = torch.eye(3, 4, device=data.device, dtype=data.dtype).expand(len(data), 3, 4)
        grid = affine_grid(identity, [len(data), 1, *shape], align_corners=False)
        field = self._displacement(data, sigma) * per_sample(magnitude, data)  # (B, 3, Z, Y, X), pixels along Z, Y, X
        # From pixels along Z, Y, X to units of the grid, which runs from -1 to 1 between the edges and counts X first.
        units = torch.tensor([2 / length if length > 1 else 0.0 for length in shape], dtype=data.dtype)
        units = units.to(data.device, non_blocking=True)
        grid = grid + (field.movedim(1, -1) * units).flip(-1)
        return grid_sample(data, grid, mode=self.mode, padding_mode=self.padding_mode, align_corners=False)

    def _displacement(self, data: Tensor, sigma: Tensor) -> Tensor:
        shape = (len(data), 3, *data.shape[2:])
        field = torch.randn(shape, generator=self._field, device=data.device, dtype=data.dtype)
        for axis in (-1, -2, -3):
            field = gaussian_blur(field, sigma, axis, self.sigma[1], border="reflect")
        return field
