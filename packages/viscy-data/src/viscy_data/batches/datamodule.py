"""One more data module is a dataset and an order: everything else is here.

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

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lightning.pytorch import LightningDataModule
from monai.transforms import MapTransform
from torch.utils.data import Sampler

from viscy_data.batches.dataset import PatchDataset
from viscy_data.batches.pipeline import TransformPipeline, collate_statistics
from viscy_data.batches.record import described, plain_record
from viscy_data.channel_dropout import ChannelDropout
from viscy_data.checks import Option, check_options, is_count
from viscy_data.distributed import FixedOrderBatchSampler, SequentialBatchSampler, World
from viscy_data.errors import InputError, raise_all
from viscy_data.loaders import BatchLoader
from viscy_data.windows import PatchWindow

__all__ = ["SPEED_SETTINGS", "BatchDataModule"]

SPEED_SETTINGS = frozenset(
    {"num_workers", "buffer_size", "pin_memory", "prefetch_factor", "cache_pool_bytes", "persistent_workers"}
    | {"dask_address"}
)
"""Settings of data modules that change how they work and not what they yield."""


class BatchDataModule(LightningDataModule):
    """What every data module of patches shares.

    Its batches hold images under ``anchor``, ``positive`` and ``negative``. Datasets read patches of the final size;
    only those that are augmented read a margin around them.

    Parameters
    ----------
    window : PatchWindow
        What is read, and what the model sees.
    batch_size : int
        Samples per batch of each rank.
    num_workers : int, default 0
        Processes that read; 0 reads in a background thread. Batches are the same for any number.
    seed : int, default 0
        Of batches, and of everything random that happens to them.
    normalizations, augmentations : sequence of MapTransform, optional
        Dictionary transforms on batches, keys are those of the datasets.
    augment_validation : bool, default False
        Augment in validation as well.
    never_augmented : sequence of str, default ()
        Roles that are only normalised.
    loader_options : mapping, optional
        Further arguments of :class:`~viscy_data.loaders.BatchLoader`. Memory is pinned by default when training on a
        GPU.
    options : sequence of Option, default ()
        Checks of further arguments, so that all problems are told together.

    Raises
    ------
    InputError
        With all options that are out of range together.
    """

    stages: ClassVar[tuple[str, ...]] = ("fit", "validate", "test", "predict")
    """Stages that :meth:`setup` takes."""
    mixed_validation: ClassVar[bool] = True
    """Whether validation goes through its anchors in one fixed mixed order: in the order of the table a batch holds
    the neighbouring frames of a few cells, which leaves a contrastive loss without true negatives."""

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
        loader_options: Mapping[str, Any] | None = None,
        options: Sequence[Option] = (),
    ) -> None:
        super().__init__()
        transforms = {"normalizations": normalizations, "augmentations": augmentations}
        shared = [
            Option("batch_size", batch_size, is_count(batch_size, 1), "a whole number of at least 1"),
            Option("num_workers", num_workers, is_count(num_workers), "a whole number of at least 0"),
            Option("seed", seed, is_count(seed), "a whole number of at least 0"),
            *(
                Option(name, found, found is None or all(map(callable, found)), "a list of transforms")
                for name, found in transforms.items()
            ),
        ]
        raise_all([*window.problems(), *check_options(type(self).__name__, [*shared, *options])])
        caller = inspect.currentframe().f_back
        self.save_hyperparameters(logger=False, frame=caller)
        self.hparams.update(plain_record(dict(self.hparams)))
        self._settings = _settings_of(type(self), caller)
        self.window = window
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.normalizations, self.augmentations = list(normalizations or []), list(augmentations or [])
        self.augment_validation, self._never_augmented = augment_validation, tuple(never_augmented)
        self._loader_options = dict(loader_options or {})
        self.train_dataset: PatchDataset | None = None
        self.val_dataset: PatchDataset | None = None
        self.predict_dataset: PatchDataset | None = None
        self.pipeline: TransformPipeline | None = None
        self._n_predicted = 0
        self._restored: dict[str, int] | None = None

    # What a subclass says

    def fit_datasets(self) -> tuple[PatchDataset, PatchDataset | None]:
        """Return the datasets of training and validation."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to fit")

    def evaluation_dataset(self) -> PatchDataset:
        """Return the dataset of validation alone."""
        return self.fit_datasets()[1]

    def prediction_dataset(self) -> PatchDataset:
        """Return the dataset of prediction, whose items are observations."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to predict")

    def train_sampler(self, world: World | None = None) -> Sampler:
        """Return what composes a rank's training batches, a lone process's by default.

        It can begin in mid-epoch (``start_batch``), as :class:`~viscy_data.sampler.FlexibleBatchSampler` does.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what makes up a training batch")

    def channel_keys(self) -> list[str]:
        """Name the channels of a patch, in order, as the transforms know them."""
        raise NotImplementedError(f"{type(self).__name__} does not name its channels")

    def channel_dropout(self) -> ChannelDropout | None:
        """Return what hides channels in training; nothing by default."""
        return None

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
        if self.pipeline is None:
            self.pipeline = self._make_pipeline()
        made: list[PatchDataset | None] = []
        if stage == "predict":
            self._n_predicted = 0
            if self.predict_dataset is None:
                self.predict_dataset = self.prediction_dataset()
                made = [self.predict_dataset]
        elif stage == "fit":
            if self.train_dataset is None:
                self.train_dataset, self.val_dataset = self.fit_datasets()
                made = [self.train_dataset, self.val_dataset]
        elif self.val_dataset is None:
            self.val_dataset = self.evaluation_dataset()
            made = [self.val_dataset]
        for dataset in made:
            if dataset is not None:
                raise_all(_check_statistics(dataset, self.normalizations))

    def _make_pipeline(self) -> TransformPipeline:
        """Refuse transforms of channels that there are not, before any table is read."""
        keys = self.channel_keys()
        raise_all(_check_keys(type(self).__name__, [*self.normalizations, *self.augmentations], keys))
        final_size, dropout = self.window.final_size, self.channel_dropout()
        transforms = self.normalizations, self.augmentations
        return TransformPipeline(keys, *transforms, final_size, dropout, self._never_augmented)

    def read_size(self, *, augmented: bool) -> tuple[int, int]:
        """Return height and width to read: with a margin only where augmentation needs one."""
        window = self.window
        return (window.read_size if augmented and self.augmentations else window.final_read_size)[1:]

    # Loaders

    def train_dataloader(self) -> BatchLoader:
        """Return the training batches, new ones in each epoch; from where a restored checkpoint stopped."""
        loader = self._loader(self.train_dataset, self.train_sampler(self._world()))
        if self._restored is not None:
            loader.load_state_dict(self._restored)
            self._restored = None
        return loader

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the validation anchors, the same batches in each epoch; an empty list where there are none."""
        if self.val_dataset is None:
            return []
        n, world = len(self.val_dataset), self._world()
        if self.mixed_validation:
            order = FixedOrderBatchSampler(n, self.batch_size, world.size, world.rank, seed=self.seed)
        else:
            order = SequentialBatchSampler(n, self.batch_size, world.size, world.rank)
        return self._loader(self.val_dataset, order)

    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the batches of validation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> BatchLoader:
        """Return every observation once, in order; each rank gets one contiguous part."""
        world = self._world()
        order = SequentialBatchSampler(
            len(self.predict_dataset), self.batch_size, world.size, world.rank, pad=False, start=self._n_predicted
        )
        return self._loader(self.predict_dataset, order)

    def skip_predicted(self, n_samples: int) -> None:
        """Begin this rank's prediction after its first ``n_samples`` samples; until the next set-up."""
        self._n_predicted = int(n_samples)

    def _world(self) -> World:
        if self.trainer is None:
            return World.detect()
        return World(self.trainer.world_size, self.trainer.global_rank)

    def _loader(self, dataset: PatchDataset, batches: Sampler) -> BatchLoader:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        options = {"num_workers": self.num_workers, "pin_memory": on_gpu} | self._loader_options
        return BatchLoader(dataset, sampler=batches, **options)

    # Batches

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Collate normalisation statistics, so that few tensors are moved."""
        return collate_statistics(batch) if _has_images(batch) else batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise, augment (in training), crop, and hide channels (in training)."""
        if not _has_images(batch):
            return batch
        trainer = self.trainer
        training = trainer is not None and trainer.training
        validating = trainer is not None and (trainer.validating or trainer.sanity_checking)
        return self.pipeline(batch, training=training, augment=training or (validating and self.augment_validation))

    # Checkpoints and records

    def state_dict(self) -> dict[str, Any]:
        """Say how far the training epoch has come, and how much there was to train on.

        Lightning restores loaders by itself, except when a model asks for ``trainer.estimated_stepping_batches`` while
        it sets up its optimizers: the loader then exists before the checkpoint is read. The state of a data module is
        always restored first.
        """
        loader = getattr(getattr(self, "trainer", None), "train_dataloader", None)
        state: dict[str, Any] = {"train_loader": loader.state_dict()} if isinstance(loader, BatchLoader) else {}
        return {"n_anchors": self.n_anchors(), **state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the place in the epoch for the next training loader; warn when the data are others."""
        self._restored = state_dict.get("train_loader")
        saved, now = state_dict.get("n_anchors", {}), self.n_anchors()
        if saved and now and saved != now:
            warnings.warn(
                f"the checkpoint was trained on other anchors ({saved}) than there are now ({now}): the run goes on, "
                "but not with the batches of an unbroken one",
                stacklevel=2,
            )

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
            FOVs and observations and a digest of them.
        """
        datasets = {"train": self.train_dataset, "val": self.val_dataset, "predict": self.predict_dataset}
        return {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            "settings": self._settings,
            "sources": {name: data.source_digests() for name, data in datasets.items() if data is not None},
        }


def _settings_of(cls: type, frame: Any) -> dict[str, Any]:
    """Describe the arguments that a constructor was called with, as they are in its frame."""
    parameters = inspect.signature(cls.__init__).parameters
    values = {name: frame.f_locals[name] for name in parameters if name != "self" and name in frame.f_locals}
    return described({name: value for name, value in values.items() if name not in SPEED_SETTINGS})


def _has_images(batch: Any) -> bool:
    """Batches of this module, and not an example input or the batch of another one."""
    return isinstance(batch, Mapping) and "anchor" in batch


def _check_keys(where: str, transforms: Sequence[MapTransform], keys: Sequence[str]) -> list[InputError]:
    """Return a problem for every transform that names a channel that there is not."""
    problems = []
    for transform in transforms:
        unknown = [key for key in getattr(transform, "keys", ()) if key not in keys]
        if unknown and not getattr(transform, "allow_missing_keys", False):
            problems.append(
                InputError(
                    where,
                    field=f"keys of {type(transform).__name__}",
                    found=", ".join(map(repr, unknown)),
                    expected=f"some of {', '.join(keys)}",
                    fix="correct the keys of normalizations and augmentations in the config of the data",
                )
            )
    return problems


def _check_statistics(dataset: PatchDataset, normalizations: Sequence[MapTransform]) -> list[InputError]:
    """Return a problem for every part of the data and channel that lacks statistics which a transform needs."""
    problems = {}
    for transform in normalizations:
        level = getattr(transform, "level", None)
        if level is None:
            continue
        for (label, channel, store), n_fovs in dataset.missing_statistics(level, transform.keys).items():
            problems[label, channel, level] = InputError(
                label,
                field=f"normalizations ({type(transform).__name__})",
                found=f"no {level} of channel {channel!r} in {n_fovs} FOVs of {store}",
                expected="statistics for every FOV and channel that is normalised",
                fix=f"viscy preprocess --data_path {store}",
            )
    return list(problems.values())
