"""Triplets of one plate for Lightning: which FOVs train, validate and are predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from viscy_data.batches.datamodule import BatchDataModule
from viscy_data.checks import Option, is_number
from viscy_data.distributed import World
from viscy_data.errors import MissingInputError, raise_all
from viscy_data.sampler import BatchPlan, FlexibleBatchSampler
from viscy_data.select import select_fovs
from viscy_data.stores import DEFAULT_STORAGE, FovInfo, Source, StoragePolicy
from viscy_data.tracks import find_tracks, read_tracks
from viscy_data.triplet.dataset import TripletDataset
from viscy_data.windows import PatchWindow

if TYPE_CHECKING:
    from monai.transforms import MapTransform

__all__ = ["TripletDataModule"]


class TripletDataModule(BatchDataModule):
    """Triplets from one plate and its tracks, transformed on the device.

    Parameters
    ----------
    data_path : str, Path, or sequence of these
        HCS OME-Zarr store, single image, pattern of paths or list, see :func:`viscy_data.read_fovs`.
    tracks_path : str or Path
        Root of the tracking tables, see :func:`viscy_data.find_tracks`.
    source_channel : str or sequence of str
        Channels by name, which are also the keys that the transforms see.
    z_range : tuple of int
        First slice and the one after the last.
    initial_yx_patch_size, final_yx_patch_size : tuple of int, default (512, 512), (224, 224)
        As read where there is something to augment, and what the model sees. At the edge of an image the latter is
        moved as far as needed to lie inside, so that the cell is always in its patch.
    split_ratio : float, default 0.8
        Share of the FOVs for training. Which ones is a function of ``seed`` and their names.
    batch_size : int, default 16
    num_workers : int, default 1
        Processes that read; 0 reads in a background thread. Batches are the same for any number.
    normalizations, augmentations : sequence of dictionary transforms, default ()
        Called with ``{channel: (B, 1, Z, Y, X), "norm_meta": ...}``. Augmentations are applied in training, and in
        validation with ``augment_validation``; never to anchors whose positive shows the same frame.
    augment_validation : bool, default True
    caching : bool, default False
        Not supported: chunks are cached by ``cache_pool_bytes``.
    fit_include_wells, fit_exclude_fovs : sequence of str, optional
        Restrict fitting to wells ``A/1``, and leave out FOVs ``A/1/0``.
    predict_cells, include_fov_names, include_track_ids, time_interval, return_negative
        See :class:`TripletDataset`.
    persistent_workers, prefetch_factor, pin_memory
        See :class:`torch.utils.data.DataLoader`; the first two when there are workers.
    z_window_size : int, optional
        Slices after the final crop, all by default.
    cache_pool_bytes : int, default 0
        Decoded chunks kept in memory.
    seed : int, default 0
        Of the split, the order of training, the negatives and augmentation.
    max_border_shift : int, optional
        Most pixels that the edge of the image may move a patch away from its cell; cells beyond are left out and
        counted. All cells are taken by default.
    patch_store : str or Path, optional
        Copies of the patches of all cells, see :mod:`viscy_data.patch_store`: batches are the same, and come faster.
    storage : StoragePolicy, default ``DEFAULT_STORAGE``
        What to do about FOVs that cannot be read (``bad_fovs: leave_out`` goes on without them), and about chunks that
        are not stored (``missing_chunks: refuse``), see :class:`viscy_data.stores.StoragePolicy`.
    """

    stages = ("fit", "validate", "predict")
    mixed_validation = False

    def __init__(
        self,
        data_path: Source,
        tracks_path: str | Path,
        source_channel: str | Sequence[str],
        z_range: tuple[int, int],
        initial_yx_patch_size: tuple[int, int] = (512, 512),
        final_yx_patch_size: tuple[int, int] = (224, 224),
        split_ratio: float = 0.8,
        batch_size: int = 16,
        num_workers: int = 1,
        normalizations: Sequence[MapTransform] = (),
        augmentations: Sequence[MapTransform] = (),
        augment_validation: bool = True,
        caching: bool = False,
        fit_include_wells: Sequence[str] | None = None,
        fit_exclude_fovs: Sequence[str] | None = None,
        predict_cells: bool = False,
        include_fov_names: Sequence[str] | None = None,
        include_track_ids: Sequence[int] | None = None,
        time_interval: Literal["any"] | int = "any",
        return_negative: bool = True,
        persistent_workers: bool = False,
        prefetch_factor: int | None = None,
        pin_memory: bool = False,
        z_window_size: int | None = None,
        cache_pool_bytes: int = 0,
        *,
        seed: int = 0,
        max_border_shift: int | None = None,
        patch_store: str | Path | None = None,
        storage: StoragePolicy = DEFAULT_STORAGE,
    ) -> None:
        if caching:
            raise ValueError("caching=True is not supported; set cache_pool_bytes to keep decoded chunks in memory")
        loader_options = {
            "pin_memory": pin_memory,
            "persistent_workers": persistent_workers,
            "prefetch_factor": prefetch_factor,
        }
        super().__init__(
            PatchWindow(
                z_range,
                initial_yx_patch_size,
                final_yx_patch_size,
                z_window_size,
                max_border_shift,
                where=type(self).__name__,
                read_name="initial_yx_patch_size",
            ),
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            normalizations=normalizations,
            augmentations=augmentations,
            augment_validation=augment_validation,
            # An anchor whose positive shows the same frame is the view that stays as it is.
            never_augmented=["anchor"] if time_interval in ("any", 0) else [],
            patch_store=patch_store,
            loader_options=loader_options,
            storage=storage,
            options=[
                Option("split_ratio", split_ratio, is_number(split_ratio) and 0 < split_ratio < 1, "between 0 and 1"),
            ],
        )
        self.data_path, self.tracks_path = data_path, tracks_path
        self.source_channel = [source_channel] if isinstance(source_channel, str) else list(source_channel)
        self.split_ratio = split_ratio
        self.fit_include_wells, self.fit_exclude_fovs = fit_include_wells, fit_exclude_fovs
        self._dataset_options = {
            "time_interval": time_interval,
            "return_negative": return_negative,
            "cache_pool_bytes": cache_pool_bytes,
        }
        self._cells = {
            "predict_cells": predict_cells,
            "include_fov_names": include_fov_names,
            "include_track_ids": include_track_ids,
        }

    def channel_keys(self) -> list[str]:
        """Name the channels as in ``source_channel``."""
        return self.source_channel

    def fit_datasets(self) -> tuple[TripletDataset, TripletDataset]:
        """Split the FOVs."""
        fovs = self._fovs_to_fit(self.read_fovs(self.data_path))
        train, val = self.split_fovs(fovs, self.split_ratio, str(self.data_path))
        return self._dataset(train, augmented=True), self._dataset(val, augmented=self.augment_validation)

    def prediction_dataset(self) -> TripletDataset:
        """Read all observations of the plate, or the chosen tracks."""
        return self._dataset(self.read_fovs(self.data_path), fit=False, **self._cells)

    def train_sampler(self, world: World | None = None) -> FlexibleBatchSampler:
        """Return shuffled batches of full size, a new order in each epoch."""
        plan = BatchPlan(self.batch_size, experiment_aware=False, condition_balanced=False)
        return FlexibleBatchSampler.from_plan(self.train_dataset.valid_anchors, plan, world, self.seed)

    def _fovs_to_fit(self, fovs: Sequence[FovInfo]) -> list[FovInfo]:
        said = {"where": str(self.data_path), "fields": ("fit_include_wells", "fit_exclude_fovs")}
        return select_fovs(fovs, self.fit_include_wells, self.fit_exclude_fovs, left_out=self.left_out_fovs, **said)

    def _dataset(self, fovs: Sequence[FovInfo], *, augmented: bool = False, **options: Any) -> TripletDataset:
        paths = [find_tracks(self.tracks_path, fov.name) for fov in fovs]
        raise_all(
            MissingInputError(f"{self.tracks_path}, FOV {fov.name}", found="no CSV", expected="a tracking table")
            for fov, path in zip(fovs, paths, strict=True)
            if path is None
        )
        return TripletDataset(
            fovs,
            [read_tracks(path) for path in paths],
            self.source_channel,
            self.read_size(augmented=augmented),
            self.window.slices,
            seed=self.seed,
            final_yx_patch_size=self.window.final_size[1:],
            max_border_shift=self.window.max_border_shift,
            collate_statistics=True,
            patch_store=self.patch_store,
            **self._dataset_options,
            **options,
        )
