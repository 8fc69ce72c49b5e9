"""Triplets of one plate for Lightning: split, loaders, transforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningDataModule
from monai.transforms import Compose, MapTransform

from viscy_data.channels import center_crop, transform_channelwise
from viscy_data.distributed import SequentialBatchSampler
from viscy_data.errors import InputError, MissingInputError, raise_all
from viscy_data.loaders import BatchLoader
from viscy_data.norm_meta import collate_norm_meta
from viscy_data.sampler import FlexibleBatchSampler
from viscy_data.stores import FovInfo, read_plate
from viscy_data.tracks import find_tracks, read_tracks
from viscy_data.triplet.dataset import TripletDataset
from viscy_data.typing import TripletSample

__all__ = ["TripletDataModule"]

_ROLES = ("anchor", "positive", "negative")


class TripletDataModule(LightningDataModule):
    """Triplets from one plate and its tracks, transformed on the device.

    Parameters
    ----------
    data_path, tracks_path : str or Path
        HCS OME-Zarr store; root of the tracking tables ``<row>/<column>/<fov>/*.csv``.
    source_channel : str or sequence of str
        Channels by name, which are also the keys that the transforms see.
    z_range : tuple of int
        First slice and the one after the last.
    initial_yx_patch_size, final_yx_patch_size : tuple of int, default (512, 512), (224, 224)
        As read, and after the centre crop that ends the transforms.
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
        Of the split, the order of training and the negatives.
    """

    def __init__(
        self,
        data_path: str | Path,
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
    ) -> None:
        super().__init__()
        if caching:
            raise ValueError("caching=True is not supported; set cache_pool_bytes to keep decoded chunks in memory")
        if not 0 < split_ratio < 1 or batch_size < 1:
            raise ValueError(f"split_ratio={split_ratio} must lie between 0 and 1, batch_size={batch_size} be positive")
        self.final_size = (z_window_size or z_range[1] - z_range[0], *final_yx_patch_size)
        if any(f > i for f, i in zip(self.final_size, (z_range[1] - z_range[0], *initial_yx_patch_size), strict=True)):
            raise ValueError(f"final patch {self.final_size} is larger than what is read, {initial_yx_patch_size}")
        for name, value in {"fit_include_wells": fit_include_wells, "fit_exclude_fovs": fit_exclude_fovs}.items():
            if isinstance(value, str):
                raise TypeError(f"{name} must be a list of names, found the string {value!r}")
        self.data_path, self.tracks_path = data_path, tracks_path
        self.source_channel = [source_channel] if isinstance(source_channel, str) else list(source_channel)
        self.split_ratio, self.batch_size, self.seed = split_ratio, batch_size, seed
        self.augment_validation, self.time_interval = augment_validation, time_interval
        self.fit_include_wells, self.fit_exclude_fovs = fit_include_wells, fit_exclude_fovs
        self._normalizations = list(normalizations)
        self._plain = Compose(self._normalizations)
        self._augmented = Compose([*self._normalizations, *augmentations])
        self._loader_options: dict[str, Any] = {"pin_memory": pin_memory}
        if num_workers > 0:
            self._loader_options |= {"num_workers": num_workers, "persistent_workers": persistent_workers}
            self._loader_options |= {"prefetch_factor": prefetch_factor} if prefetch_factor else {}
        self._dataset_options = {
            "channel_names": self.source_channel,
            "initial_yx_patch_size": tuple(initial_yx_patch_size),
            "z_range": tuple(z_range),
            "time_interval": time_interval,
            "return_negative": return_negative,
            "cache_pool_bytes": cache_pool_bytes,
            "seed": seed,
        }
        self._cells = (predict_cells, include_fov_names, include_track_ids)
        self._n_predicted = 0

    def setup(self, stage: str) -> None:
        """Build the datasets of a stage: ``fit``, ``validate`` or ``predict``."""
        if stage not in ("fit", "validate", "predict"):
            raise NotImplementedError(f"TripletDataModule has no stage {stage!r}, only fit, validate and predict")
        fovs = read_plate(self.data_path)
        if stage == "predict":
            cells = dict(zip(("predict_cells", "include_fov_names", "include_track_ids"), self._cells, strict=True))
            self.predict_dataset = self._dataset(fovs, fit=False, **cells)
        else:
            train, val = self._split(self._fovs_to_fit(fovs))
            self.train_dataset, self.val_dataset = self._dataset(train), self._dataset(val)

    def _fovs_to_fit(self, fovs: Sequence[FovInfo]) -> list[FovInfo]:
        wells, excluded = self.fit_include_wells, self.fit_exclude_fovs or ()
        names = {name.strip("/") for name in (*(wells or ()), *excluded)}
        if unknown := sorted(names - {fov.well for fov in fovs} - {fov.name for fov in fovs}):
            raise InputError(
                str(self.data_path),
                field="fit_include_wells, fit_exclude_fovs",
                found=", ".join(unknown),
                expected=f"wells or FOVs of the plate, such as {fovs[0].well} or {fovs[0].name}" if fovs else "",
            )
        chosen = [fov for fov in fovs if wells is None or fov.well in {well.strip("/") for well in wells}]
        return [fov for fov in chosen if fov.name not in {name.strip("/") for name in excluded}]

    def _split(self, fovs: Sequence[FovInfo]) -> tuple[list[FovInfo], list[FovInfo]]:
        if len(fovs) < 2:
            raise InputError(
                str(self.data_path), found=f"{len(fovs)} FOVs to fit", expected="at least 2, to train and to validate"
            )
        ordered = sorted(fovs, key=lambda fov: fov.name)
        n_train = min(max(int(len(fovs) * self.split_ratio), 1), len(fovs) - 1)
        chosen = set(np.random.default_rng(self.seed).permutation(len(fovs))[:n_train].tolist())
        return tuple([fov for i, fov in enumerate(ordered) if (i in chosen) is side] for side in (True, False))

    def _dataset(self, fovs: Sequence[FovInfo], **options: Any) -> TripletDataset:
        paths = [find_tracks(self.tracks_path, fov.name) for fov in fovs]
        raise_all(
            MissingInputError(f"{self.tracks_path}, FOV {fov.name}", found="no CSV", expected="a tracking table")
            for fov, path in zip(fovs, paths, strict=True)
            if path is None
        )
        dataset = TripletDataset(fovs, [read_tracks(path) for path in paths], **self._dataset_options, **options)
        raise_all(self._missing_statistics(dataset))
        return dataset

    def _missing_statistics(self, dataset: TripletDataset) -> list[InputError]:
        """Say what the normalisations will ask for in vain."""
        return [
            InputError(
                f"{key.store}, FOV {key.name}",
                field=f"normalization, channel {name}",
                found=f"no {transform.level}",
                fix=f"compute them: viscy preprocess --data_path {key.store}",
            )
            for transform in self._normalizations
            if hasattr(transform, "level")
            for key, name in dataset.statistics.missing(transform.level)
            if name in transform.keys
        ]

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of full size, a new order in each epoch."""
        batches = FlexibleBatchSampler(
            self.train_dataset.valid_anchors,
            self.batch_size,
            experiment_aware=False,
            condition_balanced=False,
            num_replicas=None,
            rank=None,
            seed=self.seed,
        )
        return BatchLoader(self.train_dataset, sampler=batches, **self._loader_options)

    def val_dataloader(self) -> BatchLoader:
        """All anchors in order."""
        batches = SequentialBatchSampler(len(self.val_dataset), self.batch_size, None, None)
        return BatchLoader(self.val_dataset, sampler=batches, **self._loader_options)

    def predict_dataloader(self) -> BatchLoader:
        """Every observation once, in order, over all ranks."""
        n, start = len(self.predict_dataset), self._n_predicted
        batches = SequentialBatchSampler(n, self.batch_size, None, None, pad=False, start=start)
        return BatchLoader(self.predict_dataset, sampler=batches, **self._loader_options)

    def skip_predicted(self, n_samples: int) -> None:
        """Begin this rank's prediction after its first ``n_samples`` samples."""
        self._n_predicted = n_samples

    def on_before_batch_transfer(self, batch: TripletSample, dataloader_idx: int) -> TripletSample:
        """Collate the statistics, so that few tensors are moved to the device."""
        if not isinstance(batch, Mapping):  # Lightning sends example inputs along the same way
            return batch
        batch = dict(batch)
        for role in _ROLES:
            if isinstance(samples := batch.get(f"{role}_norm_meta"), list):
                batch[f"{role}_norm_meta"] = collate_norm_meta(samples)
        return batch

    def on_after_batch_transfer(self, batch: TripletSample, dataloader_idx: int) -> TripletSample:
        """Normalise, augment and crop, on the device of the batch."""
        if not isinstance(batch, Mapping):
            return batch
        batch = self.on_before_batch_transfer(batch, dataloader_idx)
        augment = self._augmenting()
        same_frame = self.time_interval in ("any", 0)
        # Augmentation is a function of the batch, whichever process or thread read it.
        if (rng_seed := batch.pop("rng_seed", None)) is not None:
            self._augmented.set_random_state(seed=rng_seed)
        for role in _ROLES:
            if role in batch:
                transform = self._augmented if augment and not (role == "anchor" and same_frame) else self._plain
                norm_meta = batch.pop(f"{role}_norm_meta", None)
                patch = transform_channelwise(transform, self.source_channel, batch[role], norm_meta)
                batch[role] = center_crop(patch, self.final_size)
        return batch

    def _augmenting(self) -> bool:
        trainer = self.trainer
        if trainer is None or trainer.predicting:
            return False
        return trainer.training or (self.augment_validation and (trainer.validating or trainer.sanity_checking))
