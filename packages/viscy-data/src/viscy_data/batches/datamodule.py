"""One more data module of cells is a dataset and an order: everything else is here and in :mod:`.stages`.

A subclass of :class:`BatchDataModule` says which datasets a stage has and in which order training goes through them::

    class Cells(BatchDataModule):
        def __init__(self, path: str, batch_size: int = 16, num_workers: int = 1, seed: int = 0) -> None:
            super().__init__(PatchWindow((0, 1), (32, 32)), batch_size=batch_size, num_workers=num_workers, seed=seed)
            self.path = path

        def channel_keys(self):
            return ["Phase"]

        def fit_datasets(self):
            return cells_of(self.path), None

        def train_sampler(self, world):
            return FlexibleBatchSampler(self.train_dataset.cells, self.batch_size, ...)

Loaders, ranks, transforms by stage, resuming, prediction in parts and the record of the data come with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viscy_data.batches.dataset import PatchDataset
from viscy_data.batches.pipeline import TransformPipeline, collate_statistics
from viscy_data.batches.stages import StagedDataModule
from viscy_data.batches.transform_checks import check_keys, check_statistics, check_transforms
from viscy_data.channel_dropout import ChannelDropout
from viscy_data.checks import Option
from viscy_data.errors import InputError, raise_all
from viscy_data.memory import refuse_too_large
from viscy_data.patch_store import CellBoxes
from viscy_data.stores import DEFAULT_STORAGE, StoragePolicy
from viscy_data.windows import PatchWindow

if TYPE_CHECKING:
    from monai.transforms import MapTransform

__all__ = ["BatchDataModule"]


class BatchDataModule(StagedDataModule):
    """What every data module of cells shares.

    Its batches hold images under ``anchor``, ``positive`` and ``negative``. Datasets read patches of the final size;
    only those that are augmented read a margin around them.

    Parameters
    ----------
    window : PatchWindow
        What is read, and what the model sees.
    batch_size, num_workers, seed, augment_validation, loader_options, storage, options
        As for :class:`~viscy_data.batches.stages.StagedDataModule`.
    normalizations, augmentations : sequence of MapTransform, optional
        Dictionary transforms on batches, keys are those of the datasets.
    never_augmented : sequence of str, default ()
        Roles that are only normalised.
    patch_store : str or Path, optional
        Of ``dynaclr cache-patches``: the patches of all cells, for datasets to read instead of the images.

    Raises
    ------
    InputError
        With all options that are out of range together.
    """

    mixed_validation = True
    # In the order of the table a batch holds the neighbouring frames of a few cells, which leaves a contrastive loss
    # without true negatives.

    def __init__(
        self,
        window: PatchWindow,
        *,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        normalizations: Sequence[MapTransform] | None = None,
        augmentations: Sequence[MapTransform] | None = None,
        augment_validation: bool = False,
        never_augmented: Sequence[str] = (),
        patch_store: str | Path | None = None,
        loader_options: Mapping[str, Any] | None = None,
        storage: StoragePolicy = DEFAULT_STORAGE,
        options: Sequence[Option] = (),
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            augment_validation=augment_validation,
            loader_options=loader_options,
            storage=storage,
            options=[*check_transforms(normalizations=normalizations, augmentations=augmentations), *options],
            problems=window.problems(),
        )
        self.window = window
        self.normalizations, self.augmentations = list(normalizations or []), list(augmentations or [])
        self._never_augmented, self.patch_store = tuple(never_augmented), patch_store

    # What a subclass says

    def channel_keys(self) -> list[str]:
        """Name the channels of a patch, in order, as the transforms know them."""
        raise NotImplementedError(f"{type(self).__name__} does not name its channels")

    def channel_dropout(self) -> ChannelDropout | None:
        """Return what hides channels in training; nothing by default."""
        return None

    # Set-up

    def make_pipeline(self) -> TransformPipeline:
        """Refuse transforms of channels that there are not, before any table is read."""
        keys = self.channel_keys()
        raise_all(check_keys(type(self).__name__, [*self.normalizations, *self.augmentations], keys))
        final_size, dropout = self.window.final_size, self.channel_dropout()
        transforms = self.normalizations, self.augmentations
        return TransformPipeline(keys, *transforms, final_size, dropout, self._never_augmented)

    def check_dataset(self, dataset: PatchDataset) -> list[InputError]:
        """Say where statistics are missing that a normalisation needs; refuse batches that no memory holds."""
        pixels = self.batch_size * len(dataset.keys) * math.prod(dataset.size)
        what = f"batches of {self.batch_size} patches {dataset.size} of {len(dataset.keys)} channels, float32"
        # One is trained on while the next one is read.
        where, fix = type(self).__name__, "choose a smaller batch_size"
        refuse_too_large(where, 2 * 4 * pixels, field="batch_size", what=what, fix=fix)
        return check_statistics(dataset, self.normalizations)

    def read_size(self, *, augmented: bool) -> tuple[int, int]:
        """Return height and width to read: with a margin only where augmentation needs one."""
        window = self.window
        return (window.read_size if augmented and self.augmentations else window.final_read_size)[1:]

    def cell_boxes(self) -> CellBoxes:
        """Return what all stages read of which images; they are set up for it, without a patch store."""
        self.patch_store = None
        for stage in ("fit", "predict"):
            self.setup(stage)
        datasets = (self.train_dataset, self.val_dataset, self.predict_dataset)
        return CellBoxes.union([dataset.cell_boxes() for dataset in datasets if dataset is not None])

    # Batches

    def has_images(self, batch: Any) -> bool:
        """Tell a batch of this module from an example input or the batch of another module."""
        return isinstance(batch, Mapping) and "anchor" in batch

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Collate normalisation statistics, so that few tensors are moved."""
        return collate_statistics(batch) if self.has_images(batch) else batch
