"""The data of several experiments for Lightning: split, loaders, and what happens to a batch on the device.

>>> data = MultiExperimentDataModule(
...     "experiments.yml", z_range=(0, 5), yx_patch_size=(224, 224), final_yx_patch_size=(160, 160),
...     val_experiments=["2024_dengue_membrane"],
... )  # doctest: +SKIP
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from monai.transforms import MapTransform

from dynaclr.datamodule.evaluation_order import FixedOrderBatchSampler
from dynaclr.datamodule.settings import WHERE, PatchWindow, plain_record
from dynaclr.datamodule.split import ExperimentSplit, check_known
from dynaclr.datamodule.trainer_checks import compare_beta, compare_leak, refuse_overfit_batches
from dynaclr.datamodule.transform_checks import check_keys, check_statistics
from dynaclr.datamodule.transform_pipeline import TransformPipeline, collate_statistics
from dynaclr.dataset import MultiExperimentTripletDataset
from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from viscy_data.channel_dropout import ChannelDropout
from viscy_data.checks import Option, check_options, is_count, is_names, is_number, is_range
from viscy_data.distributed import SequentialBatchSampler, World
from viscy_data.errors import InputError, raise_all
from viscy_data.loaders import BatchLoader
from viscy_data.patches import DEFAULT_CACHE_POOL_BYTES
from viscy_data.sampler import FlexibleBatchSampler
from viscy_data.sampler.plan import BatchPlan

__all__ = ["MultiExperimentDataModule"]

_logger = logging.getLogger(__name__)


class MultiExperimentDataModule(LightningDataModule):
    """Train on some experiments, validate on others, predict all.

    Parameters
    ----------
    experiments_yaml : str
        File that lists the experiments, see :class:`~dynaclr.experiment.ExperimentRegistry`.
    z_range : tuple of int
        First and one past the last slice.
    yx_patch_size, final_yx_patch_size : tuple of int
        Pixels that are read around a cell (room for rotation and scaling), and those in the centre that the model sees.
    val_experiments : list of str
        Experiments that are validated on, and not trained on; may be empty.
    tau_range : tuple of float, default (0.5, 2.0)
        Hours from anchor to positive, both included. (0, 0): two views of the same patch.
    tau_decay_rate : float, default 2.0
        Larger favours short times; 0 is uniform.
    batch_size : int, default 128
    num_workers : int, default 1
        Processes that read; 0 reads in a background thread. Batches are the same for any number.
    experiment_aware, condition_balanced, leaky, temporal_enrichment, temporal_window_hours, temporal_global_fraction
        Composition of training batches, see :class:`~viscy_data.sampler.FlexibleBatchSampler`.
    experiment_weights, condition_ratio : dict of str to float, optional
        Shares other than by size, and other than equal.
    channel_dropout_channels : list of int, optional
        Channel positions that are hidden at random in training; [1] by default when there are two channels or more.
    channel_dropout_prob : float, default 0.5
        Probability for each of them, in each view.
    normalizations, augmentations : list of MapTransform, optional
        Transforms on batches, whose keys are ``ch_0``, ``ch_1``, ...; augmentations only act in training.
    hcl_beta : float, default 0.5
        Has no effect: the loss has its own ``beta``. Kept for old configs, with a warning when the two differ.
    cache_pool_bytes : int, default ``DEFAULT_CACHE_POOL_BYTES``
        Decoded chunks kept in memory by each process that reads; 0 keeps none.
    seed : int, default 0
        Of batches, positives and augmentation.
    include_wells, exclude_fovs : list of str, optional
        Take only these wells; leave out these FOVs.
    index_path : str, optional
        Index saved by ``dynaclr build-index``, instead of reading the tracking tables.
    positive_scope : {"descendants", "lineage", "track"}, default "descendants"
        Whose later observations are positives.
    training_channels : {"shared", "all"} or list of str, optional
        How channels correspond across experiments; by position in ``source_channel`` by default.
    predict_experiments : list of str, optional
        Experiments to predict; all by default.
    max_per_lineage : int, optional
        Most anchors of one lineage in a training batch.
    return_negative : bool, default False
        Add negatives to batches, for triplet losses.
    dask_address : str, optional
        Scheduler of a Dask cluster that reads the tracking tables.

    Raises
    ------
    InputError
        With all options that are out of range together. Set-up raises it for what does not fit the experiments.

    Notes
    -----
    Validation pairs are the same in every epoch. Testing uses the validation experiments.
    """

    def __init__(
        self,
        experiments_yaml: str,
        z_range: tuple[int, int],
        yx_patch_size: tuple[int, int],
        final_yx_patch_size: tuple[int, int],
        val_experiments: list[str],
        tau_range: tuple[float, float] = (0.5, 2.0),
        tau_decay_rate: float = 2.0,
        batch_size: int = 128,
        num_workers: int = 1,
        experiment_aware: bool = True,
        condition_balanced: bool = True,
        leaky: float = 0.0,
        temporal_enrichment: bool = False,
        temporal_window_hours: float = 2.0,
        temporal_global_fraction: float = 0.3,
        experiment_weights: dict[str, float] | None = None,
        condition_ratio: dict[str, float] | None = None,
        channel_dropout_channels: list[int] | None = None,
        channel_dropout_prob: float = 0.5,
        normalizations: list[MapTransform] | None = None,
        augmentations: list[MapTransform] | None = None,
        hcl_beta: float = 0.5,
        cache_pool_bytes: int = DEFAULT_CACHE_POOL_BYTES,
        seed: int = 0,
        include_wells: list[str] | None = None,
        exclude_fovs: list[str] | None = None,
        *,
        index_path: str | None = None,
        positive_scope: Literal["descendants", "lineage", "track"] = "descendants",
        training_channels: Literal["shared", "all"] | list[str] | None = None,
        predict_experiments: list[str] | None = None,
        max_per_lineage: int | None = None,
        return_negative: bool = False,
        dask_address: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.hparams.update(plain_record(dict(self.hparams)))
        window = PatchWindow(z_range, yx_patch_size, final_yx_patch_size)
        names = "a list of different names"
        options = [
            Option("val_experiments", val_experiments, is_names(val_experiments), names),
            Option(
                "predict_experiments",
                predict_experiments,
                predict_experiments is None or (is_names(predict_experiments) and len(predict_experiments) > 0),
                f"{names}, or null for all experiments",
            ),
            Option("tau_range", tau_range, is_range(tau_range, 0), "[first, last] hours with 0 <= first <= last"),
            Option("tau_decay_rate", tau_decay_rate, is_number(tau_decay_rate), "a finite number"),
            Option("num_workers", num_workers, is_count(num_workers), "a whole number of at least 0"),
            Option("hcl_beta", hcl_beta, is_number(hcl_beta, 0), "a number of at least 0"),
            Option("cache_pool_bytes", cache_pool_bytes, is_count(cache_pool_bytes), "a whole number of at least 0"),
            Option("seed", seed, is_count(seed), "a whole number of at least 0"),
            *(
                Option(name, found, found is None or all(map(callable, found)), "a list of transforms")
                for name, found in (("normalizations", normalizations), ("augmentations", augmentations))
            ),
        ]
        raise_all([*window.problems(), *check_options(WHERE, options)])
        self._plan = BatchPlan(
            batch_size=batch_size,
            experiment_aware=experiment_aware,
            leaky=leaky,
            experiment_weights=experiment_weights,
            condition_balanced=condition_balanced,
            condition_ratio=condition_ratio,
            temporal_enrichment=temporal_enrichment,
            temporal_window_hours=temporal_window_hours,
            temporal_global_fraction=temporal_global_fraction,
            max_per_lineage=max_per_lineage,
        )
        self._dropout = ChannelDropout(channel_dropout_channels or [], channel_dropout_prob)
        self._window, self._default_dropout = window, channel_dropout_channels is None
        self.experiments_yaml, self.index_path = str(experiments_yaml), index_path
        self.val_experiments, self.predict_experiments = list(val_experiments), predict_experiments
        self.tau_range, self.tau_decay_rate, self.positive_scope = tuple(tau_range), tau_decay_rate, positive_scope
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.normalizations, self.augmentations = list(normalizations or []), list(augmentations or [])
        self.hcl_beta, self.cache_pool_bytes, self.return_negative = hcl_beta, cache_pool_bytes, return_negative
        self.training_channels, self.dask_address = training_channels, dask_address
        self.include_wells, self.exclude_fovs = include_wells, exclude_fovs
        self.train_dataset: MultiExperimentTripletDataset | None = None
        self.val_dataset: MultiExperimentTripletDataset | None = None
        self.predict_dataset: MultiExperimentTripletDataset | None = None
        self.pipeline: TransformPipeline | None = None
        self._registry: ExperimentRegistry | None = None
        self._n_predicted = 0

    # Set-up

    def setup(self, stage: str | None = None) -> None:
        """Read experiments and tracks, and check what the config asks of them.

        Parameters
        ----------
        stage : {"fit", "validate", "test", "predict"}, optional
            Which datasets to make; those of ``fit`` by default.

        Raises
        ------
        InputError
            If the experiments, the split, the transforms or the statistics do not fit together.
        """
        if self._registry is None:
            self._registry = ExperimentRegistry.from_yaml(self.experiments_yaml, self.training_channels)
            self.pipeline = self._make_pipeline(self._registry.num_source_channels)
        if stage == "predict":
            self._setup_predict()
        elif stage in ("validate", "test"):
            self._setup_evaluation()
        else:
            self._setup_fit()

    def _make_pipeline(self, n_channels: int) -> TransformPipeline:
        keys = [f"ch_{position}" for position in range(n_channels)]
        problems = check_keys([*self.normalizations, *self.augmentations], keys, self.experiments_yaml)
        if self._default_dropout and n_channels > 1:
            self._dropout.channels = [1]
        if beyond := [channel for channel in self._dropout.channels if channel >= n_channels]:
            problems.append(
                InputError(
                    self.experiments_yaml,
                    field="channel_dropout_channels",
                    found=f"channel {beyond[0]}",
                    expected=f"positions of the {n_channels} channels, counted from 0",
                )
            )
        raise_all(problems)
        return TransformPipeline(keys, self.normalizations, self.augmentations, self._window.final_size, self._dropout)

    def _setup_fit(self) -> None:
        refuse_overfit_batches(self.trainer)
        compare_beta(self.trainer, self.hcl_beta)
        compare_leak(self.trainer, self._plan)
        split = ExperimentSplit.of(self._registry, self.val_experiments, self.experiments_yaml)
        if self.train_dataset is not None:
            return
        index = self._make_index(self._registry, self.tau_range)
        self.train_dataset = self._make_dataset(index.subset(split.train) if split.val else index)
        if split.val and self.val_dataset is None:
            self.val_dataset = self._make_dataset(index.subset(split.val))
        _logger.info(
            "training on %d anchors of %s; validating on %s",
            len(self.train_dataset),
            ", ".join(split.train),
            f"{len(self.val_dataset)} anchors of {', '.join(split.val)}" if split.val else "nothing",
        )

    def _setup_evaluation(self) -> None:
        if self.val_dataset is not None:
            return
        check_known(self.val_experiments, self._registry, "val_experiments", self.experiments_yaml)
        if not self.val_experiments:
            raise InputError(
                self.experiments_yaml, field="val_experiments", found="none", expected="experiments to evaluate on"
            )
        self.val_dataset = self._make_dataset(self._index_of(self.val_experiments, self.tau_range))

    def _setup_predict(self) -> None:
        self._n_predicted = 0
        if self.predict_dataset is not None:
            return
        names = self.predict_experiments or [config.name for config in self._registry.experiments]
        check_known(names, self._registry, "predict_experiments", self.experiments_yaml)
        # Nothing is paired in a prediction: no cell, and no experiment, is left out for want of a positive.
        self.predict_dataset = self._make_dataset(self._index_of(names, (0.0, 0.0)), fit=False)

    def _index_of(self, names: Iterable[str], tau_range: tuple[float, float]) -> MultiExperimentIndex:
        """Return an index of some experiments; a saved one is of all of them."""
        if self.index_path is not None:
            return self._make_index(self._registry, tau_range).subset(names)
        return self._make_index(self._registry.subset(names), tau_range)

    def _make_index(self, registry: ExperimentRegistry, tau_range: tuple[float, float]) -> MultiExperimentIndex:
        options = {
            "z_range": self._window.slices,
            "yx_patch_size": self._window.yx_patch_size,
            "tau_range_hours": tau_range,
            "include_wells": self.include_wells,
            "exclude_fovs": self.exclude_fovs,
            "positive_scope": self.positive_scope,
        }
        if self.index_path is not None:
            return MultiExperimentIndex.load(self.index_path, registry, **options)
        return MultiExperimentIndex(registry, dask_address=self.dask_address, **options)

    def _make_dataset(self, index: MultiExperimentIndex, fit: bool = True) -> MultiExperimentTripletDataset:
        dataset = MultiExperimentTripletDataset(
            index,
            fit=fit,
            tau_range_hours=self.tau_range,
            tau_decay_rate=self.tau_decay_rate,
            return_negative=self.return_negative,
            cache_pool_bytes=self.cache_pool_bytes,
            seed=self.seed,
            collate_statistics=True,
        )
        raise_all(check_statistics(dataset, self.normalizations, self.pipeline.keys, self.experiments_yaml))
        return dataset

    # Loaders

    def train_dataloader(self) -> BatchLoader:
        """Return batches composed by :class:`~viscy_data.sampler.FlexibleBatchSampler`, new ones in each epoch."""
        return self._loader(self.train_dataset, self.train_sampler(self._world()))

    def train_sampler(self, world: World | None = None) -> FlexibleBatchSampler:
        """Return what composes the training batches, of a lone process by default."""
        world = World() if world is None else world
        index = self.train_dataset.index
        columns = ["experiment", "condition", "hours_post_infection", "lineage_id"]
        options = {name: getattr(self._plan, name) for name in self._plan.__dataclass_fields__}
        return FlexibleBatchSampler(
            index.tracks[columns].iloc[index.anchor_rows],
            num_replicas=world.size,
            rank=world.rank,
            seed=self.seed,
            lineage_column="lineage_id",
            **options,
        )

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the validation anchors in one fixed mixed order; an empty list without validation experiments."""
        if self.val_dataset is None:
            return []
        world = self._world()
        order = FixedOrderBatchSampler(len(self.val_dataset), self.batch_size, world.size, world.rank, seed=self.seed)
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

    def _loader(self, dataset: MultiExperimentTripletDataset, batches: Any) -> BatchLoader:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return BatchLoader(dataset, sampler=batches, num_workers=self.num_workers, pin_memory=on_gpu)

    # Batches

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Collate normalisation statistics, so that few tensors are moved."""
        return collate_statistics(batch) if _has_images(batch) else batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise, augment (in training), crop, and hide channels (in training)."""
        if not _has_images(batch):
            return batch
        return self.pipeline(batch, training=self.trainer is not None and self.trainer.training)

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Say what was trained on: anchors per experiment, by which a resumed run notices other data."""
        return {"n_anchors": self._n_anchors()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Warn when the data are not those of the checkpoint: batches then differ from those of an unbroken run."""
        saved, now = state_dict.get("n_anchors", {}), self._n_anchors()
        if saved and now and saved != now:
            warnings.warn(
                f"the checkpoint was trained on other anchors ({saved}) than there are now ({now}): the run goes on, "
                "but not with the batches of an unbroken one",
                stacklevel=2,
            )

    def _n_anchors(self) -> dict[str, int]:
        if self.train_dataset is None:
            return {}
        index = self.train_dataset.index
        counts = index.tracks["experiment"].iloc[index.anchor_rows].value_counts(sort=False)
        return {str(name): int(count) for name, count in counts.items() if count}


def _has_images(batch: Any) -> bool:
    """Batches of this module, and not an example input or the batch of another one."""
    return isinstance(batch, Mapping) and "anchor" in batch
