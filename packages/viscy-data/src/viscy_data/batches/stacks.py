"""Whole frames of FOVs: some channels and slices, all rows and columns, with their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from viscy_data.batches.sources import count_missing_statistics, digest_sources
from viscy_data.errors import InputError, raise_all
from viscy_data.norm_meta import NormStatistics
from viscy_data.patches import PatchReader
from viscy_data.stores import FovInfo, describe_position, read_fov

if TYPE_CHECKING:
    from iohub.ngff import Position

__all__ = ["FovStacks"]


class FovStacks:
    """Read frames of FOVs.

    Parameters
    ----------
    positions : sequence of FovInfo or iohub Position
        The FOVs.
    channels : sequence of str
        Channels by name; every FOV has them.
    array_key : str, optional
        Array of each FOV; the first that its metadata list by default.
    with_statistics : bool, default True
        Read normalisation statistics.
    cache_pool_bytes : int, default 0
        Decoded chunks kept in memory. Whole frames are rarely asked for twice.

    Attributes
    ----------
    fovs : tuple of FovInfo
    channels : tuple of str

    Raises
    ------
    InputError
        Naming the FOVs and the channels that they lack.
    """

    def __init__(
        self,
        positions: Sequence[FovInfo | Position],
        channels: Sequence[str],
        *,
        array_key: str | None = None,
        with_statistics: bool = True,
        cache_pool_bytes: int = 0,
    ) -> None:
        self.fovs = tuple(_describe(position, array_key) for position in positions)
        self.channels = tuple(channels)
        self._numbers = _channel_numbers(self.fovs, self.channels)
        self._names = [list(self.channels)] * len(self.fovs)
        self._reader = PatchReader(self.fovs, cache_pool_bytes=cache_pool_bytes)
        keys = [fov.key for fov in self.fovs]
        self._statistics = NormStatistics(keys, self._names, names=self.channels) if with_statistics else None

    def read(self, fov: int, t: int, z: int = 0, depth: int | None = None) -> Tensor:
        """Return slices of a frame, all of them by default; float32, shape (C, Z, Y, X)."""
        extent = self.fovs[fov].shape[2:]
        size = (extent[0] if depth is None else depth, *extent[1:])
        zero = np.zeros(1, np.int64)
        boxes = (zero + fov, zero + t, self._numbers[fov][None], zero + z, zero, zero)
        return torch.from_numpy(self._reader.read(*boxes, size)[0])

    def statistics(self, fov: int, t: int) -> dict[str, Any] | None:
        """Return the statistics of a frame by channel; None where there are none, or they were not asked for."""
        if self._statistics is None:
            return None
        return self._statistics.samples(np.array([fov]), np.array([t]))[0] or None

    def source_digests(self, counts: Sequence[int]) -> list[dict[str, Any]]:
        """Say which FOVs of which stores there are, with the number of samples of each FOV."""
        return digest_sources(self.fovs, self._names, np.repeat(np.arange(len(self.fovs)), counts))

    def missing_statistics(self, level: str, keys: Sequence[str]) -> dict[tuple[str, str, str], int]:
        """Count the FOVs without statistics of a level, by store, channel, and store."""
        if self._statistics is None:
            return {}
        return count_missing_statistics(self._statistics, self.fovs, self._names, self.channels, level, keys)


def _describe(position: FovInfo | Position, array_key: str | None) -> FovInfo:
    fov = position if isinstance(position, FovInfo) else describe_position(position)
    return fov if array_key in (None, fov.array_key) else read_fov(fov.key, array_key=array_key)


def _channel_numbers(fovs: Sequence[FovInfo], channels: Sequence[str]) -> np.ndarray:
    numbers = np.empty((len(fovs), len(channels)), np.int64)
    problems = []
    for row, fov in enumerate(fovs):
        for column, name in enumerate(channels):
            try:
                numbers[row, column] = fov.channel_index(name)
            except InputError as err:
                problems.append(err)
    raise_all(problems)
    return numbers
