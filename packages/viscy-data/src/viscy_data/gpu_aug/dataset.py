"""Whole frames by channel, kept on a local disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from viscy_data.batches.samples import SampleDataset, draw_seed
from viscy_data.batches.stacks import FovStacks
from viscy_data.frame_cache import FrameNames
from viscy_data.stores import FovInfo
from viscy_data.volume_files import VolumeFiles

if TYPE_CHECKING:
    from iohub.ngff import Position
    from monai.transforms import Compose

__all__ = ["CachedOmeZarrDataset"]


class CachedOmeZarrDataset(SampleDataset):
    """One sample per frame of each FOV: ``{channel: (1, Z, Y, X), "norm_meta": ...}``, float32.

    ``dataset[3]`` is the list of its patches, one unless the transform makes more; ``dataset[[3, 1]]`` is a batch.

    Parameters
    ----------
    positions : sequence of FovInfo or iohub Position
        The FOVs.
    channel_names : sequence of str
        Channels by name.
    cache_map : VolumeFiles, optional
        Where volumes are kept; datasets of different FOVs may share one. By default nothing is kept.
    transform : Compose, optional
        Of one sample.
    array_key : str, optional
        Array of each FOV; the first that its metadata list by default.
    load_normalization_metadata : bool, default True
        Read normalisation statistics.
    skip_cache : bool, default False
        Read from the store each time.
    preprocess_transforms : Compose, optional
        Applied once, before a volume is kept. Statistics are for it alone then: samples have no ``norm_meta``.
    frame_step : int, default 1
        Take the first frame of each FOV and every so many-th after it.
    seed : int, default 0
        With epoch and position, determines everything random.
    """

    seeds_batches = True

    def __init__(
        self,
        positions: Sequence[FovInfo | Position],
        channel_names: Sequence[str],
        cache_map: VolumeFiles | None = None,
        transform: Compose | None = None,
        array_key: str | None = None,
        load_normalization_metadata: bool = True,
        skip_cache: bool = False,
        *,
        preprocess_transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        frame_step: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(transform, seed)
        self.channel_names, self._preprocess = list(channel_names), preprocess_transforms
        self.stacks = FovStacks(
            positions, channel_names, array_key=array_key, with_statistics=load_normalization_metadata
        )
        fovs = self.fovs = self.stacks.fovs
        self.frame_step = frame_step
        self._n_frames = [len(range(0, fov.shape[0], frame_step)) for fov in fovs]
        self._ends = np.cumsum(self._n_frames)
        self.cache = None if skip_cache else cache_map
        if self.cache is not None:
            self._names = FrameNames(fovs)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, position: int) -> tuple[int, int]:
        """Return FOV and frame of a sample."""
        fov = int(np.searchsorted(self._ends, position, side="right"))
        return fov, (position - int(self._ends[fov]) + self._n_frames[fov]) * self.frame_step

    def read(self, position: int) -> dict[str, Any]:
        """Return the volume by channel, with its statistics."""
        fov, t = self.place(position)
        if self.cache is None:
            volume = self._make(fov, t)
        else:
            volume = self.cache.fetch(self._names.name(fov, t), lambda: self._make(fov, t))
        statistics = self.stacks.statistics(fov, t) if self._preprocess is None else None
        return self._by_channel(volume) | ({"norm_meta": statistics} if statistics else {})

    def _make(self, fov: int, t: int) -> Tensor:
        volume = self.stacks.read(fov, t)
        if self._preprocess is None:
            return volume
        if hasattr(self._preprocess, "set_random_state"):
            self._preprocess.set_random_state(seed=draw_seed(self.seed, fov, t))
        statistics = self.stacks.statistics(fov, t)
        sample = self._preprocess(self._by_channel(volume) | ({"norm_meta": statistics} if statistics else {}))
        return torch.cat([torch.as_tensor(sample[name]).as_subclass(Tensor) for name in self.channel_names])

    def _by_channel(self, volume: Tensor) -> dict[str, Any]:
        return dict(zip(self.channel_names, volume.split(1), strict=True))

    def source_digests(self) -> list[dict[str, Any]]:
        """Say which frames of which stores there are; see :func:`viscy_data.batches.sources.digest_sources`."""
        return self.stacks.source_digests(self._n_frames)

    def missing_statistics(self, level: str, keys: Sequence[str]) -> dict[tuple[str, str, str], int]:
        """Count the FOVs without statistics of a level."""
        return self.stacks.missing_statistics(level, keys)
