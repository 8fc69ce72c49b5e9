"""From a stack of channels to the images that a pretrained network takes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = ["ChannelUse", "Plane", "resized", "standardized", "to_plane"]

Plane = Literal["middle", "max", "mean"]
ChannelUse = Literal["average", "concatenate"]


def to_plane(x: Tensor, plane: Plane) -> Tensor:
    """Make one plane (B, C, Y, X) of stacks (B, C, Z, Y, X): the slice Z // 2, or a projection along z."""
    if plane == "middle":
        return x[:, :, x.shape[2] // 2]
    return x.amax(dim=2) if plane == "max" else x.mean(dim=2)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images (B, C, Y, X), bilinear; without aliasing where they become smaller."""
    if tuple(x.shape[-2:]) == size:
        return x
    return interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)


def standardized(x: Tensor) -> Tensor:
    """Give each channel of each image (B, C, Y, X) mean 0 and standard deviation 1; constant ones become 0."""
    variance, mean = torch.var_mean(x, dim=(-2, -1), keepdim=True, correction=0)
    return (x - mean) * torch.rsqrt(variance + 1e-5)  # as InstanceNorm2d does
