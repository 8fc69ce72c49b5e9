"""How far the edge of an image moves the patches of the cells near to it."""

from __future__ import annotations

import numpy as np

from dynaclr.index.tracks_table import TracksTable
from viscy_data.placement import border_shift

__all__ = ["border_shifts"]

_BLOCK = 1 << 20  # rows at a time: 64-bit intermediates of a whole table of 10^8 rows would be its largest part


def border_shifts(table: TracksTable, yx_patch_size: tuple[int, int]) -> np.ndarray:
    """Return by how many pixels the patch of each observation is moved, the larger of both axes.

    Parameters
    ----------
    table : TracksTable
        N observations.
    yx_patch_size : tuple of int
        Height and width of a patch, no larger than any image.

    Returns
    -------
    ndarray of int16, shape (N,)
    """
    extents = np.array([info.shape[3:] for info in table.fovs], np.int64).reshape(-1, 2)
    shifts = np.empty(len(table), np.int16)
    centers = [table.columns[name].to_numpy() for name in "yx"]
    for first in range(0, len(table), _BLOCK):
        part = slice(first, first + _BLOCK)
        own = extents[table.fov_index[part]]
        along = [border_shift(centers[axis][part], own[:, axis], yx_patch_size[axis]) for axis in (0, 1)]
        shifts[part] = np.maximum(*along)
    return shifts
