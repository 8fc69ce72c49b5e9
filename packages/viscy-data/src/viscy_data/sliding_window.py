"""All windows of slices of all frames of some FOVs, for image translation: what goes in, and what is to come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from viscy_data.batches.samples import SampleDataset
from viscy_data.batches.stacks import FovStacks
from viscy_data.channels import center_crop
from viscy_data.errors import InputError, raise_all
from viscy_data.frame_cache import FrameNames
from viscy_data.mask_files import find_masks, read_mask
from viscy_data.stores import FovInfo
from viscy_data.typing import ChannelMap, HCSStackIndex, Sample
from viscy_data.volume_files import VolumeFiles
from viscy_data.windows import check_fovs_hold

if TYPE_CHECKING:
    from iohub.ngff import Position

__all__ = ["MaskTestDataset", "SlidingWindowDataset"]


class SlidingWindowDataset(SampleDataset):
    """Every window of ``z_window_size`` slices of every frame, slices running fastest.

    ``dataset[3]`` is a sample and ``dataset[[3, 1]]`` a batch.

    Parameters
    ----------
    positions : sequence of FovInfo or iohub Position
        FOVs of one or more plates.
    channels : ChannelMap
        Names of the channels under ``source`` and, if there is one, ``target``.
    z_window_size : int
        Slices of a window.
    array_key : str, optional
        Array of each FOV; the first that its metadata list by default.
    transform : callable, optional
        Dictionary transform of one sample: ``{channel: (1, Z, Y, X), ...}``, with ``weight`` (the first target channel)
        and ``norm_meta``. One that returns a list (``RandWeightedCropd``) makes several patches of a window.
    load_normalization_metadata : bool, default True
        Read normalisation statistics.
    crop_size : tuple of int, optional
        (Z, Y, X) of the central part that is kept in the end.
    kept_frames : VolumeFiles, optional
        Where frames of these channels are kept decoded, in memory-mapped files. By default nothing is kept.
    seeds_batches : bool, default False
        Give batches ``rng_seed``: int, for what happens to them on the device.
    seed : int, default 0
        With epoch and position, determines everything random.

    Raises
    ------
    InputError
        Naming the FOVs that have too few slices, or lack channels.
    """

    def __init__(
        self,
        positions: Sequence[FovInfo | Position],
        channels: ChannelMap,
        z_window_size: int,
        array_key: str | None = None,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        load_normalization_metadata: bool = True,
        *,
        crop_size: tuple[int, int, int] | None = None,
        seeds_batches: bool = False,
        kept_frames: VolumeFiles | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(transform, seed)
        listed = {role: _as_list(names) for role, names in channels.items()}
        self.channels = {role: names for role, names in listed.items() if names}
        self.z_window_size, self.crop_size, self.seeds_batches = z_window_size, crop_size, seeds_batches
        names = [name for role in self.channels.values() for name in role]
        self.stacks = FovStacks(
            positions, dict.fromkeys(names), array_key=array_key, with_statistics=load_normalization_metadata
        )
        fovs = self.fovs = self.stacks.fovs
        self._kept = kept_frames
        self._names = FrameNames(fovs) if kept_frames is not None else None
        needed = slice(0, z_window_size), (crop_size or (0, 0, 0))[1:]
        for store in dict.fromkeys(fov.store for fov in fovs):
            own = [fov for fov in fovs if fov.store == store]
            raise_all(check_fovs_hold(own, *needed, store, z_name="z_window_size"))
        self._windows = np.array([[fov.shape[0], fov.shape[2] - z_window_size + 1] for fov in fovs], np.int64)
        self._ends = self._windows.prod(axis=1).cumsum()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, position: int) -> tuple[int, int, int]:
        """Return FOV, frame and first slice of a window."""
        fov = int(np.searchsorted(self._ends, position, side="right"))
        n_before = int(self._ends[fov - 1]) if fov else 0
        return fov, *divmod(position - n_before, int(self._windows[fov, 1]))

    def read(self, position: int) -> dict[str, Any]:
        """Read a window: (1, Z, Y, X) under the name of each channel."""
        fov, t, z = self.place(position)
        pixels = self._pixels(fov, t, z)
        sample: dict[str, Any] = dict(zip(self.stacks.channels, pixels.split(1), strict=True))
        sample["index"] = HCSStackIndex(f"/{self.fovs[fov].name}/{self.fovs[fov].array_key}", t, z)
        if statistics := self.stacks.statistics(fov, t):
            sample["norm_meta"] = statistics
        if "target" in self.channels and self.transform is not None:
            sample["weight"] = sample[self.channels["target"][0]]
        return sample

    def _pixels(self, fov: int, t: int, z: int) -> Tensor:
        if self._kept is None:
            return self.stacks.read(fov, t, z, self.z_window_size)
        frame = self._kept.fetch(self._names.name(fov, t), lambda: self.stacks.read(fov, t))
        return frame[:, z : z + self.z_window_size]

    def finish(self, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Stack the channels of each role and cut the central part out."""
        sample: dict[str, Any] = {"index": patch["index"]}
        for role, names in self.channels.items():
            stacked = torch.cat([patch[name] for name in names])
            sample[role] = center_crop(stacked, self.crop_size).contiguous() if self.crop_size else stacked
        return sample | {key: patch[key] for key in ("norm_meta", "labels") if key in patch}

    def item(self, patches: list[Sample]) -> Sample:
        """Return the sample; lists of tensors where the transform makes several patches of it."""
        if len(patches) == 1:
            return patches[0]
        return patches[0] | {role: [patch[role] for patch in patches] for role in self.channels}

    def source_digests(self) -> list[dict[str, Any]]:
        """Say which windows of which stores there are; see :func:`viscy_data.batches.sources.digest_sources`."""
        return self.stacks.source_digests(self._windows.prod(axis=1))

    def missing_statistics(self, level: str, keys: Sequence[str]) -> dict[tuple[str, str, str], int]:
        """Count the FOVs without statistics of a level."""
        return self.stacks.missing_statistics(level, keys)


class MaskTestDataset(SlidingWindowDataset):
    """Windows with the segmentation of their middle slice, for tests.

    Parameters
    ----------
    positions, channels, z_window_size, transform, array_key, **options
        As for :class:`SlidingWindowDataset`.
    ground_truth_masks : str or Path, optional
        Folder of ``*cp_masks.png`` files, named by FOV (``_p003``) and slice (``_z12``), of the first frame. Samples
        with a mask have ``labels``: int16, (Y, X).

    Raises
    ------
    InputError
        If two FOVs would take the same masks, or a name cannot be read.
    """

    def __init__(
        self,
        positions: Sequence[FovInfo | Position],
        channels: ChannelMap,
        z_window_size: int,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        ground_truth_masks: str | Path | None = None,
        array_key: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(positions, channels, z_window_size, array_key, transform, **options)
        self.masks = {} if ground_truth_masks is None else find_masks(ground_truth_masks)
        numbers = [_fov_number(fov) for fov in self.fovs] if self.masks else []
        twice = sorted({number for number in numbers if numbers.count(number) > 1})
        if twice:
            raise InputError(
                str(ground_truth_masks),
                found=f"several FOVs with the numbers {twice}",
                expected="one FOV for each number in the names of masks",
                fix="test one well at a time",
            )

    def read(self, position: int) -> dict[str, Any]:
        """Read a window and its mask, if there is one."""
        fov, t, z = self.place(position)
        sample = super().read(position)
        path = self.masks.get((_fov_number(self.fovs[fov]), t, z + self.z_window_size // 2)) if self.masks else None
        return sample if path is None else sample | {"labels": torch.from_numpy(read_mask(path))}


def _fov_number(fov: FovInfo) -> int:
    name = fov.name.rpartition("/")[2]
    if not name.isdecimal():
        raise InputError(fov.where, found=f"the name {name!r}", expected="a number, by which masks are found")
    return int(name)


def _as_list(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
