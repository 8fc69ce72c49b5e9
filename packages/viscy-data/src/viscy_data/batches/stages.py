"""What every data module shares, whatever its batches hold: set-up by stage, loaders, ranks, resuming, records.

A subclass says which datasets a stage has::

    class Stacks(StagedDataModule):
        def __init__(self, path: str, batch_size: int = 16, num_workers: int = 1, seed: int = 0) -> None:
            super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
            self.path = path

        def fit_datasets(self):
            train, val = self.split_fovs(self.read_fovs(self.path), ratio=0.8)
            return stacks_of(train), stacks_of(val)

A dataset is asked for whole batches: ``dataset[[3, 1, 2]]``. It has a length and ``source_digests()``.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from lightning.pytorch import LightningDataModule
from torch.utils.data import Sampler

from viscy_data.batches.elastic import follow_ranks
from viscy_data.batches.readable import ReadableFovs
from viscy_data.batches.record import constructor_of, plain_record, settings_of
from viscy_data.checks import Option, check_options, is_count
from viscy_data.distributed import (
    FixedOrderBatchSampler,
    SequentialBatchSampler,
    ShuffledBatchSampler,
    World,
)
from viscy_data.errors import InputError, raise_all
from viscy_data.splits import FovSplit
from viscy_data.stores import DEFAULT_STORAGE, FovInfo, FovKey, Source, StoragePolicy
from viscy_data.worker_processes import prepare_workers

if TYPE_CHECKING:
    from viscy_data.loaders import BatchLoader

__all__ = ["BatchedDataset", "Pipeline", "StagedDataModule", "as_loaded"]

Stage = Literal["fit", "validate", "test", "predict"]


class BatchedDataset(Protocol):
    """What a data module needs of its datasets."""

    def __len__(self) -> int:
        """Count the items."""

    def __getitem__(self, positions: Sequence[int]) -> dict[str, Any]:
        """Return the batch of these items."""

    def source_digests(self) -> list[dict[str, Any]]:
        """Say which pixels of which stores there are, in plain values."""


class Pipeline(Protocol):
    """What happens to a batch between its transfer to the device and the model."""

    def __call__(self, batch: dict[str, Any], *, training: bool, augment: bool) -> dict[str, Any]:
        """Return the batch as the model gets it."""


class StagedDataModule(LightningDataModule):
    """What every data module shares.

    Parameters
    ----------
    batch_size : int
        Samples per batch of each rank. Loaders go by the attribute, which may be changed.
    num_workers : int, default 0
        Processes that read; 0 reads in a background thread. Batches are the same for any number.
    seed : int, default 0
        Of batches, and of everything random that happens to them.
    augment_validation : bool, default False
        Augment in validation as well.
    loader_options : mapping, optional
        Further arguments of :class:`~viscy_data.loaders.BatchLoader`; those that are None are left out. Memory is
        pinned by default when training on a GPU. ``prefetch_factor`` is how many batches each worker, or without any
        the reading thread, has ready.
    storage : StoragePolicy, default ``DEFAULT_STORAGE``
        What to do about FOVs that cannot be read, and about chunks that are not stored; for :meth:`read_fovs`.
    options : sequence of Option, default ()
        Checks of further arguments, so that all problems are told together.
    problems : sequence of InputError, default ()
        What else is wrong with the arguments.

    Attributes
    ----------
    train_dataset, val_dataset, test_dataset, predict_dataset : BatchedDataset or None
        Of the stages that are set up.
    split : FovSplit or None
        Which FOVs train and which validate, where :meth:`split_fovs` has split them.

    Raises
    ------
    InputError
        With all options that are out of range together.
    """

    stages: ClassVar[tuple[Stage, ...]] = ("fit", "validate", "test", "predict")
    """Stages that :meth:`setup` takes."""
    mixed_validation: ClassVar[bool] = False
    """Whether validation goes through its items in one fixed mixed order instead of theirs."""
    drop_last: ClassVar[bool] = True
    """Whether the items beyond a multiple of the batch size wait for another epoch of training."""

    def __init__(
        self,
        *,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        augment_validation: bool = False,
        loader_options: Mapping[str, Any] | None = None,
        storage: StoragePolicy = DEFAULT_STORAGE,
        options: Sequence[Option] = (),
        problems: Sequence[InputError] = (),
    ) -> None:
        super().__init__()
        # A rank may have predicted all of its part before an interruption of the others.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        ahead = (loader_options or {}).get("prefetch_factor")
        shared = [
            Option("batch_size", batch_size, is_count(batch_size, 1), "a whole number of at least 1"),
            Option("num_workers", num_workers, is_count(num_workers), "a whole number of at least 0"),
            Option("seed", seed, is_count(seed), "a whole number of at least 0"),
            Option("prefetch_factor", ahead, ahead is None or is_count(ahead, 1), "a whole number of at least 1"),
        ]
        raise_all([*problems, *check_options(type(self).__name__, [*shared, *options])])
        constructor = constructor_of(self, inspect.currentframe())
        self.save_hyperparameters(logger=False, frame=constructor)
        self.hparams.update(plain_record(dict(self.hparams)))
        self._settings = settings_of(type(self), constructor)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.augment_validation = augment_validation
        self._loader_options = dict(loader_options or {})
        self._readable = ReadableFovs(storage)
        self.train_dataset: BatchedDataset | None = None
        self.val_dataset: BatchedDataset | None = None
        self.test_dataset: BatchedDataset | None = None
        self.predict_dataset: BatchedDataset | None = None
        self.pipeline: Pipeline | None = None
        self.split: FovSplit | None = None
        self._restored_split: FovSplit | None = None
        self._n_predicted = 0
        self._restored: dict[str, int] | None = None

    # What a subclass says

    def fit_datasets(self) -> tuple[BatchedDataset, BatchedDataset | None]:
        """Return the datasets of training and validation."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to fit")

    def evaluation_dataset(self) -> BatchedDataset:
        """Return the dataset of validation alone."""
        return self.fit_datasets()[1]

    def testing_dataset(self) -> BatchedDataset | None:
        """Return the dataset of tests; None, the default, is that of validation."""
        return None

    def prediction_dataset(self) -> BatchedDataset:
        """Return the dataset of prediction, whose items are observations or windows."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to predict")

    def train_sampler(self, world: World | None = None) -> Sampler:
        """Return what composes a rank's training batches, a lone process's by default: shuffled items.

        It is a :class:`~viscy_data.distributed.ResumableSampler`, which can begin in mid-epoch.
        """
        world = World() if world is None else world
        return ShuffledBatchSampler(
            len(self.train_dataset),
            self.items_per_batch("fit"),
            world.size,
            world.rank,
            seed=self.seed,
            drop_last=self.drop_last,
        )

    def items_per_batch(self, stage: Stage) -> int:
        """Return how many items of a dataset make a batch; ``batch_size`` by default."""
        return self.batch_size

    def loader_options(self) -> dict[str, Any]:
        """Return further arguments of loaders; those that were given by default."""
        return self._loader_options

    def make_pipeline(self) -> Pipeline:
        """Return what prepares batches on the device, before any dataset is made; nothing by default."""
        return as_loaded

    def check_dataset(self, dataset: BatchedDataset) -> list[InputError]:
        """Return what of a dataset does not fit the config."""
        return []

    def has_images(self, batch: Any) -> bool:
        """Tell a batch of this module from an example input or the batch of another module."""
        return isinstance(batch, Mapping) and "source" in batch

    # Set-up

    def setup(self, stage: str | None = None) -> None:
        """Make the datasets of a stage, once, and check that the transforms fit them.

        Parameters
        ----------
        stage : {"fit", "validate", "test", "predict"}, optional
            ``fit`` by default.

        Raises
        ------
        InputError
            If data and config do not fit together.
        NotImplementedError
            If there is no such stage.
        """
        stage = stage or "fit"
        if stage not in self.stages:
            raise NotImplementedError(f"{type(self).__name__} has no stage {stage!r}, only {', '.join(self.stages)}")
        if self.num_workers:
            prepare_workers()
        if self.pipeline is None:
            self.pipeline = self.make_pipeline()
        if stage == "predict":
            self._n_predicted = 0
        for dataset in self._make_datasets(stage):
            if dataset is not None:
                raise_all(self.check_dataset(dataset))

    def _make_datasets(self, stage: str) -> list[BatchedDataset | None]:
        """Make the datasets of a stage that there are not yet, and return them."""
        if stage == "predict":
            return self._once("predict_dataset", self.prediction_dataset)
        if stage == "fit":
            if self.train_dataset is not None:
                return []
            self.train_dataset, self.val_dataset = self.fit_datasets()
            return [self.train_dataset, self.val_dataset]
        made = self._once("test_dataset", self.testing_dataset) if stage == "test" else []
        if stage == "test" and self.test_dataset is not None:
            return made
        return self._once("val_dataset", self.evaluation_dataset)

    def _once(self, name: str, make: Callable[[], BatchedDataset | None]) -> list[BatchedDataset | None]:
        if getattr(self, name) is not None:
            return []
        setattr(self, name, make())
        return [getattr(self, name)]

    @property
    def storage(self) -> StoragePolicy:
        """What is done about FOVs that cannot be read, and about chunks that are not stored."""
        return self._readable.storage

    @property
    def left_out_fovs(self) -> dict[FovKey, str]:
        """FOVs that could not be read and are left out, with what was found there, of the stages that are set up."""
        return dict(self._readable.left_out)

    def read_fovs(self, source: Source, *, array_key: str | None = None) -> tuple[FovInfo, ...]:
        """List the FOVs of a store, or of several, that can be used; others stop or are left out, see ``storage``.

        Parameters
        ----------
        source, array_key
            As for :func:`viscy_data.read_fovs`.

        Raises
        ------
        InputError
            As :func:`viscy_data.stores.usable_fovs`.
        """
        return self._readable.read(source, array_key=array_key)

    def leave_out(self, bad: Mapping[FovKey, str]) -> dict[FovKey, str]:
        """Leave out what any rank cannot read, as :meth:`ReadableFovs.leave_out` does, and keep it for the record."""
        return self._readable.leave_out(bad)

    def split_fovs(self, fovs: Sequence[FovInfo], ratio: float, where: str) -> tuple[list[FovInfo], list[FovInfo]]:
        """Split the FOVs of a plate for training and validation.

        The split is a function of ``seed`` and the names of the FOVs; a resumed run keeps the one of its checkpoint.

        Parameters
        ----------
        fovs : sequence of FovInfo
            Of one plate, at least two.
        ratio : float
            Share for training, between 0 and 1.
        where : str
            The plate, for messages.
        """
        kept = self._restored_split
        if kept is None or not kept.is_of(fovs):
            kept = FovSplit.draw(fovs, ratio, self.seed, where=where)
        self.split = kept
        return kept.sides(fovs)

    # Loaders

    def train_dataloader(self) -> BatchLoader:
        """Return the training batches, new ones in each epoch; from where a restored checkpoint stopped."""
        loader = self._loader(self.train_dataset, self.train_sampler(self._world()))
        if self._restored is not None:
            loader.load_state_dict(self._restored)
            self._restored = None
        return loader

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the validation items, the same batches in each epoch; an empty list where there are none."""
        return [] if self.val_dataset is None else self._evaluation_loader(self.val_dataset, "validate")

    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the batches of tests, which are those of validation where there are no others."""
        return (
            self.val_dataloader() if self.test_dataset is None else self._evaluation_loader(self.test_dataset, "test")
        )

    def _evaluation_loader(self, dataset: BatchedDataset, stage: Stage) -> BatchLoader:
        n, n_items, world = len(dataset), self.items_per_batch(stage), self._world()
        if self.mixed_validation and stage == "validate":
            order = FixedOrderBatchSampler(n, n_items, world.size, world.rank, seed=self.seed)
        else:
            order = SequentialBatchSampler(n, n_items, world.size, world.rank)
        return self._loader(dataset, order)

    def predict_dataloader(self) -> BatchLoader:
        """Return every item once, in order; each rank gets one contiguous part."""
        n, n_items, world = len(self.predict_dataset), self.items_per_batch("predict"), self._world()
        order = SequentialBatchSampler(n, n_items, world.size, world.rank, pad=False, start=self._n_predicted)
        return self._loader(self.predict_dataset, order)

    def skip_predicted(self, n_samples: int) -> None:
        """Begin this rank's prediction after its first ``n_samples`` samples; until the next set-up."""
        self._n_predicted = int(n_samples)

    def _world(self) -> World:
        if self.trainer is None:
            return World.detect()
        return World(self.trainer.world_size, self.trainer.global_rank)

    def _loader(self, dataset: BatchedDataset, batches: Sampler) -> BatchLoader:
        from viscy_data.loaders import BatchLoader  # MONAI comes with it

        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        given = {name: value for name, value in self.loader_options().items() if value is not None}
        if not self.num_workers:
            given.pop("persistent_workers", None)
            if "prefetch_factor" in given:  # the one reading thread holds as many
                given["buffer_size"] = given.pop("prefetch_factor")
        options = {"num_workers": self.num_workers, "pin_memory": on_gpu} | given
        return BatchLoader(dataset, sampler=batches, **options)

    # Batches

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Prepare the batch for the model; augmented in training, and in validation where that is asked for."""
        if not self.has_images(batch):
            return batch
        if self.pipeline is None:
            self.pipeline = self.make_pipeline()
        trainer = self.trainer
        training = trainer is not None and trainer.training
        validating = trainer is not None and (trainer.validating or trainer.sanity_checking)
        return self.pipeline(batch, training=training, augment=training or (validating and self.augment_validation))

    def cells_of_batch(self, stage: Literal["train", "val"], number: int) -> list[dict[str, Any]]:
        """Say which cells made up a batch of the present epoch, from the order alone.

        Parameters
        ----------
        stage : {"train", "val"}
        number : int
            Of the batch in this rank's epoch, as Lightning counts them.

        Returns
        -------
        list of dict
            As of :meth:`viscy_data.batches.dataset.PatchDataset.cells_of`; empty for datasets that do not say.
        """
        dataset = self.train_dataset if stage == "train" else self.val_dataset
        loader = self.trainer.train_dataloader if stage == "train" else self.trainer.val_dataloaders
        if not hasattr(dataset, "cells_of") or not hasattr(loader, "sampler"):
            return []
        first = getattr(loader.sampler, "start_batch", 0)
        positions = next(islice(loader.sampler, number - first, None), None)
        return [] if positions is None else dataset.cells_of(positions)

    # Checkpoints and records

    def state_dict(self) -> dict[str, Any]:
        """Say how far the training epoch has come, how much there was to train on, and how FOVs were split.

        Lightning restores loaders by itself, except when a model asks for ``trainer.estimated_stepping_batches`` while
        it sets up its optimizers: the loader then exists before the checkpoint is read. The state of a data module is
        always restored first.
        """
        loader = getattr(getattr(self, "trainer", None), "train_dataloader", None)
        state: dict[str, Any] = {}
        if loader is not None:
            from viscy_data.loaders import BatchLoader

            if isinstance(loader, BatchLoader):
                state["train_loader"] = loader.state_dict()
        if self.split is not None:
            state["split"] = self.split.record()
        return {"n_anchors": self.n_anchors(), **state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the place in the epoch for the next training loader, and the split; warn when the data are others."""
        self._restored = state_dict.get("train_loader")
        follow_ranks(self.trainer, [self._restored], lambda: self.trainer.train_dataloader.sampler.start_batch)
        if "split" in state_dict:
            self._restore_split(FovSplit.from_record(state_dict["split"]))
        saved, now = state_dict.get("n_anchors", {}), self.n_anchors()
        if saved and now and saved != now:
            warnings.warn(
                f"the checkpoint was trained on other anchors ({saved}) than there are now ({now}): the run goes on, "
                "but not with the batches of an unbroken one",
                stacklevel=2,
            )

    def _restore_split(self, split: FovSplit) -> None:
        """Set the datasets up anew where they were made with another split: Lightning restores after the set-up."""
        self._restored_split = split
        if self.split is None or self.split == split or self.split.store != split.store:
            return
        warnings.warn(
            "the FOVs to fit, split_ratio or seed are others than those of the checkpoint, whose split is kept",
            stacklevel=3,
        )
        for made, stage in ((self.train_dataset, "fit"), (self.val_dataset, "validate")):
            if made is not None:
                self.train_dataset = self.val_dataset = None
                self.setup(stage)
                return

    def n_anchors(self) -> dict[str, int]:
        """Count what there is to train on, by part; empty before set-up."""
        return {} if self.train_dataset is None else {"all": len(self.train_dataset)}

    def data_record(self) -> dict[str, Any]:
        """Return everything that decides the pixels.

        Returns
        -------
        dict
            Plain values: ``class``; ``settings``: the arguments of the constructor but for those of speed, transforms
            with their class and their attributes; ``sources``: per dataset that is set up and per store the number of
            FOVs and observations and a digest of them; ``split``, where FOVs were split: which train and which
            validate; ``left_out``, where FOVs could not be read: store, FOV, and what was found.
        """
        names = ("train", "val", "test", "predict")
        datasets = {name: getattr(self, f"{name}_dataset") for name in names}
        left_out = self.left_out_fovs
        return {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            "settings": self._settings,
            "sources": {name: data.source_digests() for name, data in datasets.items() if data is not None},
            **({} if self.split is None else {"split": self.split.record()}),
            **({"left_out": [[*key, why] for key, why in sorted(left_out.items())]} if left_out else {}),
        }


def as_loaded(batch: dict[str, Any], *, training: bool, augment: bool) -> dict[str, Any]:
    """Return the batch as the loader gave it: the pipeline of modules that do nothing on the device."""
    return batch
