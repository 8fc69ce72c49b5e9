"""Where the patch of a cell lies in its image, at the edge too.

The patch that the model sees is moved only as far as the image's edge demands, so a cell is always in its own patch.
A patch that is read with a margin, for augmentation to turn and scale it, has the cell in its middle instead: a fixed
point of rotation and scaling. What lies beyond the edge is reflected, and the cut to the final size is made where the
final patch would have been.

An image of 10 pixels, a cell at 1, a final patch of 4: without the edge it would begin at -1, so it is moved by 1.
With a margin 6 pixels are read, from -2 on; the final patch begins at 0, which is place 2 of what was read.

>>> place = Placement(center=[1.2], extent=[10], read=6, final=4)
>>> place.final_start.tolist(), place.shift.tolist()
([0], [1])
>>> place.read_start.tolist(), place.cut.tolist(), place.reflected.tolist()
([0], [2], [True])
>>> place.source().tolist()
[[2, 1, 0, 1, 2, 3]]
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from viscy_data.blocks import row_blocks

__all__ = ["Placement", "border_shift", "border_shifts", "clamp_centers", "patch_start"]

Pixels = NDArray[np.int64]


def patch_start(center: ArrayLike, size: ArrayLike) -> np.ndarray:
    """Return the first pixel of a patch about a centre.

    Parameters
    ----------
    center : array of float
        In pixels; the nearest pixel is taken, halves upwards.
    size : int or array of int
        Even or odd; the patch covers ``[start, start + size)`` exactly.

    Returns
    -------
    ndarray of int64
        ``floor(center + 0.5) - size // 2``.
    """
    nearest = np.floor(np.asarray(center, dtype=np.float64) + 0.5).astype(np.int64)
    return nearest - np.asarray(size, dtype=np.int64) // 2


def clamp_centers(center: ArrayLike, size: ArrayLike, extent: ArrayLike) -> np.ndarray:
    """Move centres as little as needed for their patches to lie inside the image.

    Parameters
    ----------
    center : array of float
        In pixels.
    size, extent : int or array of int
        Of the patch and of the image, in pixels.

    Returns
    -------
    ndarray of float32
        Such that ``patch_start`` is between 0 and ``extent - size``, both included.

    Raises
    ------
    ValueError
        If a patch is larger than its image.
    """
    size, extent = np.asarray(size, dtype=np.int64), np.asarray(extent, dtype=np.int64)
    if (size > extent).any():
        raise ValueError(f"a patch of {size.max()} pixels does not fit an image of {extent.min()}")
    return np.clip(np.asarray(center, dtype=np.float64), size // 2, extent - size + size // 2).astype(np.float32)


class Placement:
    """Patches along one axis.

    Parameters
    ----------
    center : array_like of float, shape (B,)
        Cells, in pixels; the nearest pixel is taken, halves upwards.
    extent : array_like of int, shape (B,)
        Of the images.
    read : int
        Length that is read; with a margin if it is more than ``final``.
    final : int
        Length that the model sees.
    """

    def __init__(self, center: ArrayLike, extent: ArrayLike, read: int, final: int) -> None:
        self._extent = np.asarray(extent, np.int64)
        self.pixel: Pixels = np.clip(patch_start(center, 1), 0, self._extent - 1)
        self._read, self._final = read, final

    @cached_property
    def final_start(self) -> Pixels:
        """First pixel that the model sees, in the image."""
        return np.clip(self.pixel - self._final // 2, 0, self._extent - self._final)

    @property
    def shift(self) -> Pixels:
        """How far the edge has moved the final patch, signed."""
        return self.final_start - (self.pixel - self._final // 2)

    @property
    def place(self) -> Pixels:
        """Where the cell is in what the model sees."""
        return self.pixel - self._wanted - self.cut

    @cached_property
    def _wanted(self) -> Pixels:
        """First pixel of what is read, perhaps outside the image."""
        return self.final_start if self._read == self._final else self.pixel - self._read // 2

    @cached_property
    def read_start(self) -> Pixels:
        """First pixel to read, inside the image."""
        return np.clip(self._wanted, 0, self._extent - self._read)

    @property
    def reflected(self) -> NDArray[np.bool_]:
        """Which patches reach beyond the edge and have to be rearranged by :meth:`source`."""
        return self._wanted != self.read_start

    @property
    def cut(self) -> Pixels:
        """First place of the final patch in what is read; as near as possible to it where the margin is too small."""
        return np.clip(self.final_start - self._wanted, 0, self._read - self._final)

    def source(self) -> Pixels:
        """Places in what was read that make the patch about the cell, reflected at the edge; shape (B, read)."""
        pixels = np.abs(self._wanted[:, None] + np.arange(self._read))
        last = self._extent[:, None] - 1
        return last - np.abs(last - pixels) - self.read_start[:, None]


def border_shift(center: ArrayLike, extent: ArrayLike, final: int) -> Pixels:
    """Return by how many pixels patches of a length are moved to lie inside their image, at least 0."""
    return np.abs(Placement(center, extent, final, final).shift)


def border_shifts(y: ArrayLike, x: ArrayLike, fov: ArrayLike, extents: ArrayLike, final: Sequence[int]) -> np.ndarray:
    """Return by how many pixels the edge moves the patch of each cell, the larger of both axes.

    Parameters
    ----------
    y, x : array_like of float, shape (N,)
        Cells, in pixels.
    fov : array_like of int, shape (N,)
        FOV of each cell.
    extents : array_like of int, shape (F, 2)
        Height and width of each FOV.
    final : sequence of int
        Height and width of a patch, no larger than any image.

    Returns
    -------
    ndarray of int16, shape (N,)
    """
    fov, extents = np.asarray(fov), np.asarray(extents, np.int64).reshape(-1, 2)
    centers = np.asarray(y), np.asarray(x)
    shifts = np.empty(len(fov), np.int16)
    for part in row_blocks(len(fov)):
        own = extents[fov[part]]
        shifts[part] = np.maximum(*(border_shift(centers[axis][part], own[:, axis], final[axis]) for axis in (0, 1)))
    return shifts
