"""Frames of one plate, preprocessed once and memory-mapped from a local disk then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from viscy_data.gpu_aug import CachedOmeZarrDataModule, CachedOmeZarrDataset
from viscy_data.stores import DEFAULT_STORAGE, Source, StoragePolicy
from viscy_data.typing import DictTransform

__all__ = ["MmappedDataModule", "MmappedDataset"]

MmappedDataset = CachedOmeZarrDataset
"""The dataset: kept volumes are memory-mapped files in both modules, here after ``preprocess_transforms``."""


class MmappedDataModule(CachedOmeZarrDataModule):
    """Frames of one plate, preprocessed once.

    Parameters
    ----------
    preprocess_transforms : sequence of transforms
        Applied once to every frame, with its statistics, before it is kept; may be empty.
    **others
        As for :class:`~viscy_data.gpu_aug.CachedOmeZarrDataModule`.
    """

    def __init__(
        self,
        data_path: Source,
        channels: str | Sequence[str],
        batch_size: int,
        num_workers: int,
        split_ratio: float,
        preprocess_transforms: Sequence[DictTransform],
        train_cpu_transforms: Sequence[DictTransform],
        val_cpu_transforms: Sequence[DictTransform],
        train_gpu_transforms: Sequence[DictTransform],
        val_gpu_transforms: Sequence[DictTransform],
        pin_memory: bool = True,
        prefetch_factor: int | None = None,
        array_key: str | None = None,
        scratch_dir: str | Path | None = None,
        include_wells: Sequence[str] | None = None,
        exclude_fovs: Sequence[str] | None = None,
        *,
        max_cache_gb: float | None = None,
        seed: int = 0,
        storage: StoragePolicy = DEFAULT_STORAGE,
    ) -> None:
        super().__init__(
            data_path,
            channels,
            batch_size,
            num_workers,
            split_ratio,
            train_cpu_transforms,
            val_cpu_transforms,
            train_gpu_transforms,
            val_gpu_transforms,
            pin_memory=pin_memory,
            include_wells=include_wells,
            exclude_fovs=exclude_fovs,
            prefetch_factor=prefetch_factor,
            preprocess_transforms=preprocess_transforms,
            array_key=array_key,
            scratch_dir=scratch_dir,
            max_cache_gb=max_cache_gb,
            seed=seed,
            storage=storage,
        )
