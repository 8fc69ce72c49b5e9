"""Affine maps of space as matrices, one per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["affine_matrix"]


def affine_matrix(shift: Tensor, rotation: Tensor, scale: Tensor, shears: Sequence[Tensor]) -> Tensor:
    """Shear, scale, rotate and shift, in this order, about the origin.

    Parameters
    ----------
    shift : Tensor, shape (B, 3)
        Along X, Y and Z.
    rotation : Tensor, shape (B, 3)
        Rotation vector in radians, clockwise seen along it.
    scale : Tensor, shape (B, 3)
        Factors along X, Y and Z.
    shears : sequence of 6 tensors, shape (B,)
        Angles in radians: XY, XZ, YX, YZ, ZX, ZY. XY moves y by minus its tangent times x.

    Returns
    -------
    Tensor, shape (B, 4, 4)
        On homogeneous columns (x, y, z, 1).
    """
    linear = (_rotation_matrix(-rotation) * scale[:, None]) @ _shear_matrix(shears)
    matrix = torch.eye(4, dtype=linear.dtype).repeat(len(linear), 1, 1)
    matrix[:, :3, :3] = linear
    matrix[:, :3, 3] = shift
    return matrix


def _rotation_matrix(vector: Tensor) -> Tensor:
    """Turn rotation vectors into matrices by Rodrigues' formula, written with sinc, which has no gap at angle 0."""
    x, y, z = vector.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    turns = vector.norm(dim=1)[:, None, None] / torch.pi
    # As sinc(t) is sin(pi t) / (pi t): sin(a) / a is sinc(a / pi), (1 - cos(a)) / a^2 is sinc(a / (2 pi))^2 / 2.
    return torch.eye(3, dtype=vector.dtype) + turns.sinc() * cross + (turns / 2).sinc() ** 2 / 2 * (cross @ cross)


def _shear_matrix(shears: Sequence[Tensor]) -> Tensor:
    """Shear along z by x and y, then along y, then along x."""
    xy, xz, yx, yz, zx, zy = (-shear.tan() for shear in shears)
    one, zero = torch.ones_like(xy), torch.zeros_like(xy)
    along_x = torch.stack([one, zero, zero, xy, one, zero, xz, zero, one], 1)
    along_y = torch.stack([one, yx, zero, zero, one, zero, zero, yz, one], 1)
    along_z = torch.stack([one, zero, zx, zero, one, zy, zero, zero, one], 1)
    return along_x.view(-1, 3, 3) @ along_y.view(-1, 3, 3) @ along_z.view(-1, 3, 3)
