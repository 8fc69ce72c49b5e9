"""Annotated cells of one plate for Lightning: which FOVs train, validate and are predicted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.batches.stages import StagedDataModule
from viscy_data.batches.transform_checks import check_transforms
from viscy_data.cell_classification.annotations import annotated_cells, read_annotations
from viscy_data.cell_classification.dataset import ClassificationDataset
from viscy_data.errors import InputError
from viscy_data.patches import DEFAULT_CACHE_POOL_BYTES
from viscy_data.select import fovs_named
from viscy_data.stores import DEFAULT_STORAGE, FovInfo, StoragePolicy
from viscy_data.windows import PatchWindow

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ClassificationDataModule"]


class ClassificationDataModule(StagedDataModule):
    """Patches of the annotated cells of a plate, for :class:`dynaclr.classification.ClassificationModule`.

    Batches are tuples: images (B, 1, Z, Y, X) and labels (B, 1), both float32; in prediction also a dict of the index
    columns. Training goes through all cells in a new order in each epoch; the last batch holds what is left.

    Parameters
    ----------
    image_path, annotation_path : str or Path
        HCS OME-Zarr store; CSV of annotations, see :func:`annotated_cells`.
    val_fovs : sequence of str or None
        FOVs (or wells) that validate; all others train. None: all train.
    channel_name, z_range, initial_yx_patch_size
        See :class:`ClassificationDataset`.
    train_exclude_timepoints : sequence of int
        Frames that do not train.
    train_transforms, val_transforms : sequence of callable or None
        On each normalised image (1, Z, Y, X). Prediction has none.
    batch_size : int
        Cells per batch of each rank.
    num_workers : int
        Processes that read; 0 reads in a background thread.
    label_column : str, default "infection_state"
        Column of the labels. Cells without a label are predicted, with label -1, and neither train nor validate.
    seed : int, default 0
        Of the order of training and of random transforms.
    tracks_path : str or Path, optional
        Tracking tables, if the annotations do not say where the cells are.
    cache_pool_bytes : int, default ``DEFAULT_CACHE_POOL_BYTES``
        Decoded chunks kept in memory, per process.
    storage : StoragePolicy, default ``DEFAULT_STORAGE``
        What to do about FOVs that cannot be read (``bad_fovs: leave_out`` goes on without them), and about chunks that
        are not stored (``missing_chunks: refuse``), see :class:`viscy_data.stores.StoragePolicy`.

    Raises
    ------
    InputError
        For options out of range; at set-up also for unknown FOVs, and where no cell is left to train or to validate.
    """

    stages = ("fit", "validate", "predict")
    drop_last = False

    def __init__(
        self,
        image_path: str | Path,
        annotation_path: str | Path,
        val_fovs: Sequence[str] | None,
        channel_name: str,
        z_range: tuple[int, int],
        train_exclude_timepoints: Sequence[int],
        train_transforms: Sequence[Callable] | None,
        val_transforms: Sequence[Callable] | None,
        initial_yx_patch_size: tuple[int, int],
        batch_size: int,
        num_workers: int,
        label_column: str = "infection_state",
        *,
        seed: int = 0,
        tracks_path: str | Path | None = None,
        cache_pool_bytes: int = DEFAULT_CACHE_POOL_BYTES,
        storage: StoragePolicy = DEFAULT_STORAGE,
    ) -> None:
        window = PatchWindow(
            z_range, initial_yx_patch_size, where=type(self).__name__, read_name="initial_yx_patch_size"
        )
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            storage=storage,
            options=check_transforms(train_transforms=train_transforms, val_transforms=val_transforms),
            problems=window.problems(),
        )
        self.window = window
        self.image_path, self.annotation_path, self.tracks_path = image_path, annotation_path, tracks_path
        self.val_fovs, self.channel_name, self.label_column = val_fovs, channel_name, label_column
        self.train_exclude_timepoints = list(train_exclude_timepoints)
        self.train_transforms, self.val_transforms = train_transforms, val_transforms
        self._dataset_options = {"label_column": label_column, "cache_pool_bytes": cache_pool_bytes, "seed": seed}

    def fit_datasets(self) -> tuple[ClassificationDataset, ClassificationDataset | None]:
        """Split the FOVs by name."""
        fovs, cells = self._annotated()
        where, left_out = type(self).__name__, self.left_out_fovs
        named = fovs_named(fovs, self.val_fovs or (), where=where, field="val_fovs", left_out=left_out)
        held_out = {fov.name for fov in named}
        validates = cells["fov_name"].isin(held_out).to_numpy()
        excluded = cells["t"].isin(self.train_exclude_timepoints).to_numpy()
        train = self._dataset(fovs, cells, ~validates & ~excluded, "train", self.train_transforms)
        if not held_out:
            return train, None
        return train, self._dataset(fovs, cells, validates, "val_fovs", self.val_transforms)

    def prediction_dataset(self) -> ClassificationDataset:
        """Take all annotated cells, without transforms."""
        fovs, cells = self._annotated()
        return self._dataset(fovs, cells, np.ones(len(cells), bool), "predict", None, return_indices=True)

    def _annotated(self) -> tuple[list[FovInfo], pd.DataFrame]:
        fovs, where = list(self.read_fovs(self.image_path)), str(self.annotation_path)
        annotation = read_annotations(self.annotation_path)
        annotation = annotation[~annotation["fov_name"].isin([key.name for key in self.left_out_fovs])]
        return fovs, annotated_cells(annotation, fovs, self.label_column, where=where, tracks_path=self.tracks_path)

    def _dataset(
        self,
        fovs: Sequence[FovInfo],
        cells: pd.DataFrame,
        chosen: np.ndarray,
        part: str,
        transform: Any,
        return_indices: bool = False,
    ) -> ClassificationDataset:
        labelled = (cells["label"] >= 0).to_numpy()
        if not return_indices and not labelled[chosen].all():
            warnings.warn(
                f"{self.annotation_path}: {int((chosen & ~labelled).sum())} of {int(chosen.sum())} cells for {part} "
                f"have no {self.label_column} and are left out",
                stacklevel=2,
            )
            chosen = chosen & labelled
        if not chosen.any():
            raise InputError(
                str(self.annotation_path),
                field=self.label_column,
                found=f"no labelled cell for {part} among {len(cells)}",
                expected="at least one",
                fix="check val_fovs, train_exclude_timepoints and label_column",
            )
        used = set(cells["fov_name"][chosen])
        return ClassificationDataset(
            [fov for fov in fovs if fov.name in used],
            cells[chosen],
            self.channel_name,
            self.window.slices,
            transform,
            self.window.read_size[1:],
            return_indices,
            **self._dataset_options,
        )
