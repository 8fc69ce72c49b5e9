"""CTMC-v1: DIC videos of fourteen cell lines, as two OME-Zarr plates [1]_.

.. [1] Anjum and Gurari, "CTMC: Cell Tracking with Mitosis Detection Dataset Challenge", CVPR Workshops, 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.transforms import Compose

from viscy_data.cache_room import max_cache_option
from viscy_data.checks import Option, is_count
from viscy_data.frame_cache import frame_cache, frame_folder
from viscy_data.gpu_aug import CachedOmeZarrDataset, GPUTransformDataModule
from viscy_data.stores import DEFAULT_STORAGE, Source, StoragePolicy
from viscy_data.typing import DictTransform

__all__ = ["CTMCv1DataModule"]


class CTMCv1DataModule(GPUTransformDataModule):
    """Frames of one plate to train, and every so many-th frame of another one to validate.

    Batches are what the transforms make of ``{channel_name: (B, 1, Z, Y, X)}``.

    Parameters
    ----------
    train_data_path, val_data_path : str or Path
        HCS OME-Zarr stores, one FOV per video; images, patterns and lists, see :func:`viscy_data.read_fovs`.
    train_cpu_transforms, val_cpu_transforms, train_gpu_transforms, val_gpu_transforms : sequence of transforms
        See :class:`~viscy_data.gpu_aug.GPUTransformDataModule`.
    batch_size : int, default 16
    num_workers : int, default 8
    val_subsample_ratio : int, default 30
        Validate on the first frame of each video and on every so many-th after it.
    channel_name : str, default "DIC"
    pin_memory : bool, default True
    skip_cache : bool, default False
        Read from the stores each time.
    scratch_dir : str or Path, optional
        Where frames are kept, as for :class:`~viscy_data.gpu_aug.CachedOmeZarrDataModule`.
    max_cache_gb : float, optional
        GiB that all kept copies in that folder may take: those that no process uses are removed to keep to it, see
        :func:`viscy_data.cache_room.reserve`. By default nothing is removed.
    seed : int, default 0
        Of the order of training, and augmentation.
    storage : StoragePolicy, default ``DEFAULT_STORAGE``
        What to do about FOVs that cannot be read (``bad_fovs: leave_out`` goes on without them), and about chunks that
        are not stored (``missing_chunks: refuse``), see :class:`viscy_data.stores.StoragePolicy`.

    Raises
    ------
    InputError
        If options are out of range.
    """

    def __init__(
        self,
        train_data_path: Source,
        val_data_path: Source,
        train_cpu_transforms: Sequence[DictTransform],
        val_cpu_transforms: Sequence[DictTransform],
        train_gpu_transforms: Sequence[DictTransform],
        val_gpu_transforms: Sequence[DictTransform],
        batch_size: int = 16,
        num_workers: int = 8,
        val_subsample_ratio: int = 30,
        channel_name: str = "DIC",
        pin_memory: bool = True,
        *,
        prefetch_factor: int | None = None,
        skip_cache: bool = False,
        scratch_dir: str | Path | None = None,
        max_cache_gb: float | None = None,
        seed: int = 0,
        storage: StoragePolicy = DEFAULT_STORAGE,
    ) -> None:
        step_holds = is_count(val_subsample_ratio, 1)
        super().__init__(
            batch_size,
            num_workers,
            seed,
            pin_memory,
            prefetch_factor,
            storage=storage,
            transforms={
                "train_cpu_transforms": train_cpu_transforms,
                "val_cpu_transforms": val_cpu_transforms,
                "train_gpu_transforms": train_gpu_transforms,
                "val_gpu_transforms": val_gpu_transforms,
            },
            options=[
                max_cache_option(max_cache_gb),
                Option("val_subsample_ratio", val_subsample_ratio, step_holds, "a whole number of at least 1"),
            ],
        )
        self.train_data_path, self.val_data_path = train_data_path, val_data_path
        self.val_subsample_ratio, self.channel_name = val_subsample_ratio, channel_name
        self.skip_cache, self.scratch_dir, self.max_cache_gb = skip_cache, scratch_dir, max_cache_gb

    def fit_datasets(self) -> tuple[CachedOmeZarrDataset, CachedOmeZarrDataset]:
        """Read all frames to train, and some to validate."""
        train = self._frames(self.train_data_path, self.train_cpu_transforms)
        return train, self.evaluation_dataset()

    def evaluation_dataset(self) -> CachedOmeZarrDataset:
        """Read the frames to validate on."""
        return self._frames(self.val_data_path, self.val_cpu_transforms, self.val_subsample_ratio)

    def _frames(self, path: Source, transform: Compose, frame_step: int = 1) -> CachedOmeZarrDataset:
        fovs, cache = self.read_fovs(path), None
        if not self.skip_cache:
            folder = frame_folder(path, [self.channel_name], scratch_dir=self.scratch_dir)
            cache = frame_cache(folder, fovs, 1, frame_step, max_cache_gb=self.max_cache_gb)
        options = {"load_normalization_metadata": False, "frame_step": frame_step, "seed": self.seed}
        return CachedOmeZarrDataset(fovs, [self.channel_name], cache, transform, **options)
