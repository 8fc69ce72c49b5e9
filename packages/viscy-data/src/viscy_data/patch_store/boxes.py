"""Which boxes of which images belong to cells.

What is around a cell is decided by its FOV, its frame and its nearest pixel alone: cells that share these share a box,
whichever experiment, split or track they are of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viscy_data.errors import InputError
from viscy_data.stores import FovInfo

__all__ = ["CellBoxes"]


@dataclass(frozen=True, eq=False)
class CellBoxes:
    """Cells of some FOVs, and the box that is wanted around each.

    Parameters
    ----------
    fovs : tuple of FovInfo
        The FOVs.
    channels : ndarray of int64, shape (F, C)
        Per FOV the channels of its store in the order wanted; -1 where it has none.
    places : ndarray of int32, shape (N, 4)
        FOV number, frame, and nearest pixel (row, column) of each cell.
    slices : slice
        Slices of every box.
    yx_size : tuple of int
        Height and width of every box.
    """

    fovs: tuple[FovInfo, ...]
    channels: NDArray[np.int64]
    places: NDArray[np.int32]
    slices: slice
    yx_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int, int, int]:
        """(C, Z, Y, X) of a box."""
        return (self.channels.shape[1], self.slices.stop - self.slices.start, *self.yx_size)

    def channel_names(self, number: int) -> list[str | None]:
        """Name the channels of a FOV in its store, None where it has none."""
        names = self.fovs[number].channel_names
        return [names[channel] if channel >= 0 else None for channel in self.channels[number]]

    def starts(self, yx_size: tuple[int, int]) -> NDArray[np.int64]:
        """Return first row and column of boxes of a size about the cells, moved to lie inside their image, (N, 2)."""
        extents = np.array([fov.shape[3:] for fov in self.fovs], np.int64).reshape(-1, 2)[self.places[:, 0]]
        sizes = np.asarray(yx_size, np.int64)
        return np.clip(self.places[:, 2:] - sizes // 2, 0, extents - sizes)

    @classmethod
    def union(cls, parts: Sequence[CellBoxes]) -> CellBoxes:
        """Return every box of several tables once, the largest size of each, ordered by FOV, frame, row and column.

        Neighbours in this order share a plane, so that each plane is decoded once; and so do batches that are drawn
        from few FOVs and frames.

        Raises
        ------
        InputError
            If two of them want different channels of one FOV.
        """
        numbers: dict[tuple[str, str], int] = {}
        fovs: list[FovInfo] = []
        channels: list[NDArray[np.int64]] = []
        places = []
        for part in parts:
            for fov, own in zip(part.fovs, part.channels, strict=True):
                number = numbers.setdefault(fov.key, len(fovs))
                if number == len(fovs):
                    fovs.append(fov)
                    channels.append(own)
                elif not np.array_equal(channels[number], own):
                    found = f"{channels[number].tolist()} and {own.tolist()}"
                    raise InputError(fov.where, field="channels", found=found, expected="the same in all uses")
            into = np.array([numbers[fov.key] for fov in part.fovs], np.int32)
            places.append(np.column_stack([into[part.places[:, 0]], part.places[:, 1:]]))
        joined = np.concatenate(places)
        order = np.lexsort(joined.T[::-1])
        joined = joined[order]
        is_new = np.ones(len(joined), bool)
        is_new[1:] = (joined[1:] != joined[:-1]).any(axis=1)
        first, stop = min(part.slices.start for part in parts), max(part.slices.stop for part in parts)
        height, width = (max(part.yx_size[axis] for part in parts) for axis in (0, 1))
        return cls(tuple(fovs), np.stack(channels), joined[is_new], slice(first, stop), (height, width))
