"""Frames of one plate by channel for Lightning, kept on a local disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Compose

from viscy_data.batches.record import described
from viscy_data.cache_room import max_cache_option
from viscy_data.checks import Option, is_names, is_number
from viscy_data.frame_cache import frame_cache, frame_folder
from viscy_data.gpu_aug.dataset import CachedOmeZarrDataset
from viscy_data.gpu_aug.transforms import GPUTransformDataModule
from viscy_data.select import SelectWell
from viscy_data.stores import DEFAULT_STORAGE, FovInfo, Source, StoragePolicy
from viscy_data.typing import DictTransform
from viscy_data.volume_files import VolumeFiles

__all__ = ["CachedOmeZarrDataModule"]


class CachedOmeZarrDataModule(GPUTransformDataModule, SelectWell):
    """Frames of one plate, read from the store once and from a local disk then.

    Batches are what the transforms make of ``{channel: (B, 1, Z, Y, X), "norm_meta": ...}``.

    Parameters
    ----------
    data_path : str, Path, or sequence of these
        HCS OME-Zarr store, single image, pattern of paths or list, see :func:`viscy_data.read_fovs`.
    channels : str or sequence of str
        Channels by name, which are also the keys that the transforms see.
    batch_size, num_workers : int
        Frames per batch, before CPU transforms make patches of them; processes that read.
    split_ratio : float
        Share of the FOVs for training. Which ones is a function of ``seed`` and their names.
    train_cpu_transforms, val_cpu_transforms, train_gpu_transforms, val_gpu_transforms : sequence of transforms
        See :class:`GPUTransformDataModule`.
    pin_memory : bool, default True
    skip_cache : bool, default False
        Read from the store each time.
    include_wells, exclude_fovs : sequence of str, optional
        Restrict to wells ``A/1``, and leave out FOVs ``A/1/0``.
    prefetch_factor : int, optional
    preprocess_transforms : sequence of transforms, default ()
        Applied once, before a frame is kept, with its statistics, which the other transforms do not see then.
    array_key : str, optional
        Array of each FOV; by default the first that its metadata list, the full resolution.
    scratch_dir : str or Path, optional
        Where frames are kept, in a folder of its own for each user, content and preprocessing; the system's folder for
        temporary files by default. Later runs find them there. Remove the folder to have the space back.
    max_cache_gb : float, optional
        GiB that all kept copies in that folder may take: those that no process uses are removed to keep to it, see
        :func:`viscy_data.cache_room.reserve`. By default nothing is removed.
    seed : int, default 0
        Of the split, the order of training, and augmentation.
    storage : StoragePolicy, default ``DEFAULT_STORAGE``
        What to do about FOVs that cannot be read (``bad_fovs: leave_out`` goes on without them), and about chunks that
        are not stored (``missing_chunks: refuse``), see :class:`viscy_data.stores.StoragePolicy`.

    Raises
    ------
    InputError
        If options are out of range, names are unknown, or the disk has not the space.
    """

    def __init__(
        self,
        data_path: Source,
        channels: str | Sequence[str],
        batch_size: int,
        num_workers: int,
        split_ratio: float,
        train_cpu_transforms: Sequence[DictTransform],
        val_cpu_transforms: Sequence[DictTransform],
        train_gpu_transforms: Sequence[DictTransform],
        val_gpu_transforms: Sequence[DictTransform],
        pin_memory: bool = True,
        skip_cache: bool = False,
        include_wells: Sequence[str] | None = None,
        exclude_fovs: Sequence[str] | None = None,
        prefetch_factor: int | None = None,
        *,
        preprocess_transforms: Sequence[DictTransform] = (),
        array_key: str | None = None,
        scratch_dir: str | Path | None = None,
        max_cache_gb: float | None = None,
        seed: int = 0,
        storage: StoragePolicy = DEFAULT_STORAGE,
    ) -> None:
        names = [channels] if isinstance(channels, str) else channels
        super().__init__(
            batch_size,
            num_workers,
            seed,
            pin_memory,
            prefetch_factor,
            storage=storage,
            transforms={
                "preprocess_transforms": preprocess_transforms,
                "train_cpu_transforms": train_cpu_transforms,
                "val_cpu_transforms": val_cpu_transforms,
                "train_gpu_transforms": train_gpu_transforms,
                "val_gpu_transforms": val_gpu_transforms,
            },
            options=[
                Option(
                    "channels", channels, is_names(names) and len(names) > 0, "a name, or a list of different names"
                ),
                max_cache_option(max_cache_gb),
                Option("split_ratio", split_ratio, is_number(split_ratio) and 0 < split_ratio < 1, "between 0 and 1"),
            ],
        )
        self.data_path, self.channels, self.array_key = data_path, list(names), array_key
        self.split_ratio, self.skip_cache = split_ratio, skip_cache
        self.scratch_dir, self.max_cache_gb = scratch_dir, max_cache_gb
        self._preprocessing = described(list(preprocess_transforms))
        self._include_wells, self._exclude_fovs = include_wells, exclude_fovs

    @property
    def preprocessing_transforms(self) -> Compose:
        """Transforms of a frame before it is kept."""
        return self._listed("preprocess_transforms")

    @property
    def cache_dir(self) -> Path:
        """Where frames are kept."""
        return frame_folder(
            self.data_path, self.channels, self.array_key, self._preprocessing, self.seed, scratch_dir=self.scratch_dir
        )

    def fit_datasets(self) -> tuple[CachedOmeZarrDataset, CachedOmeZarrDataset]:
        """Split the FOVs."""
        where = str(self.data_path)
        fovs = self.fovs_to_fit(self.read_fovs(self.data_path, array_key=self.array_key), where)
        sides = self.split_fovs(fovs, self.split_ratio, where)
        cache = None
        if not self.skip_cache:
            cache = frame_cache(self.cache_dir, fovs, len(self.channels), max_cache_gb=self.max_cache_gb)
        train, val = (
            self._frames(side, cache, transform)
            for side, transform in zip(sides, (self.train_cpu_transforms, self.val_cpu_transforms), strict=True)
        )
        return train, val

    def _frames(self, fovs: Sequence[FovInfo], cache: VolumeFiles | None, transform: Compose) -> CachedOmeZarrDataset:
        preprocessing: Any = self.preprocessing_transforms
        return CachedOmeZarrDataset(
            fovs,
            self.channels,
            cache,
            transform,
            preprocess_transforms=preprocessing if preprocessing.transforms else None,
            seed=self.seed,
        )
