"""The data of several experiments for Lightning: which of them train, validate and are predicted.

>>> data = MultiExperimentDataModule(
...     "experiments.yml", z_range=(0, 5), yx_patch_size=(224, 224), final_yx_patch_size=(160, 160),
...     val_experiments=["2024_dengue_membrane"],
... )  # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from dynaclr.datamodule.split import ExperimentSplit, SplitWithin, check_known
from dynaclr.datamodule.trainer_checks import compare_beta, compare_input, compare_leak, refuse_overfit_batches
from dynaclr.dataset import MultiExperimentTripletDataset
from dynaclr.experiment import ExperimentRegistry
from dynaclr.index import MultiExperimentIndex
from dynaclr.index.conditions import check_balance
from dynaclr.tau_sampling import checked_decay_rate, checked_tau_range
from viscy_data.batches.datamodule import BatchDataModule
from viscy_data.channel_dropout import ChannelDropout
from viscy_data.checks import Option, is_count, is_names, is_number
from viscy_data.distributed import World
from viscy_data.errors import InputError, raise_all
from viscy_data.patches import DEFAULT_CACHE_POOL_BYTES
from viscy_data.sampler import AnchorColumns, BatchPlan, FlexibleBatchSampler
from viscy_data.stores import DEFAULT_STORAGE, StoragePolicy
from viscy_data.windows import PatchWindow

if TYPE_CHECKING:
    from monai.transforms import MapTransform

__all__ = ["MultiExperimentDataModule"]

_logger = logging.getLogger(__name__)

_NAMES = "a list of different names"


class MultiExperimentDataModule(BatchDataModule):
    """Train on some experiments, validate on others, predict all.

    Parameters
    ----------
    experiments_yaml : str
        File that lists the experiments, see :class:`~dynaclr.experiment.ExperimentRegistry`.
    z_range : tuple of int
        First and one past the last slice.
    yx_patch_size, final_yx_patch_size : tuple of int
        Pixels that are read around a cell for training (room for rotation and scaling), and those that the model sees.
        At the edge of an image the latter are moved as far as needed to lie inside, so that the cell is always in its
        patch; where there is nothing to augment, only they are read.
    val_experiments : list of str, optional
        Experiments that are validated on, and not trained on; none by default.
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
    neighbor_embeddings : str, optional
        Embeddings of an earlier run, by which near neighbours are found: cells of other lineages of the experiment that
        look like an anchor (hard negatives). They are read whenever the training batches are made, so that
        ``reload_dataloaders_every_n_epochs`` of the trainer takes in what has been written meanwhile.
    neighbor_fraction : float, default 0.0
        Fraction of each training batch that is replaced by near neighbours of other anchors in it.
    n_neighbors : int, default 10
        Near neighbours to choose from for each anchor.
    neighbor_obsm : str, optional
        Key of ``obsm`` in ``neighbor_embeddings``, such as ``X_projections``; the features by default.
    return_negative : bool, default False
        Add negatives to batches, for triplet losses.
    dask_address : str, optional
        Scheduler of a Dask cluster that reads the tracking tables, or ``local`` for processes of this machine.
    max_border_shift : int, optional
        Most pixels that the edge of the image may move a patch away from its cell; cells beyond are left out and
        counted. 0 leaves out every cell whose patch would leave the image; all cells are taken by default.
    val_split : SplitWithin, optional
        Validate on some FOVs or lineages of every experiment, instead of on ``val_experiments``.
    prefetch_factor : int, optional
        Batches that each reading process has ready, or the background thread without any; by default 2, or 1.
    locality : int, default 1
        Cells of one FOV and frame that are drawn together, see :class:`~viscy_data.sampler.FlexibleBatchSampler`.
    patch_store : str, optional
        Store of ``dynaclr cache-patches``, which holds the patches of all cells: batches are the same, and come faster.
    storage : StoragePolicy, default ``DEFAULT_STORAGE``
        What to do about FOVs that cannot be read (``bad_fovs: leave_out`` goes on without them), and about chunks that
        are not stored (``missing_chunks: refuse``), see :class:`viscy_data.stores.StoragePolicy`.

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
        val_experiments: list[str] | None = None,
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
        neighbor_embeddings: str | None = None,
        neighbor_fraction: float = 0.0,
        n_neighbors: int = 10,
        neighbor_obsm: str | None = None,
        return_negative: bool = False,
        dask_address: str | None = None,
        max_border_shift: int | None = None,
        val_split: SplitWithin | None = None,
        prefetch_factor: int | None = None,
        patch_store: str | None = None,
        locality: int = 1,
        storage: StoragePolicy = DEFAULT_STORAGE,
    ) -> None:
        val_experiments = [] if val_experiments is None else val_experiments
        fraction = None if val_split is None else val_split.fraction
        checked_tau_range(tau_range)
        checked_decay_rate(tau_decay_rate)
        super().__init__(
            PatchWindow(
                z_range,
                yx_patch_size,
                final_yx_patch_size,
                max_border_shift=max_border_shift,
                where=type(self).__name__,
            ),
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            normalizations=normalizations,
            augmentations=augmentations,
            patch_store=patch_store,
            loader_options={"prefetch_factor": prefetch_factor},
            storage=storage,
            options=[
                Option("val_experiments", val_experiments, is_names(val_experiments), _NAMES),
                Option(
                    "predict_experiments",
                    predict_experiments,
                    predict_experiments is None or (is_names(predict_experiments) and len(predict_experiments) > 0),
                    f"{_NAMES}, or null for all experiments",
                ),
                Option(
                    "neighbor_embeddings",
                    neighbor_embeddings,
                    (neighbor_embeddings is None) == (neighbor_fraction == 0),
                    "a store of embeddings if, and only if, neighbor_fraction is above 0",
                ),
                Option("n_neighbors", n_neighbors, is_count(n_neighbors, 1), "a whole number of at least 1"),
                Option(
                    "neighbor_obsm",
                    neighbor_obsm,
                    neighbor_obsm is None or neighbor_embeddings is not None,
                    "nothing without neighbor_embeddings",
                ),
                Option(
                    "val_split.fraction", fraction, fraction is None or 0 < fraction < 1, "more than 0, less than 1"
                ),
                Option(
                    "val_split",
                    val_split,
                    val_split is None or not val_experiments,
                    "nothing beside val_experiments: there is one way to choose what is validated on",
                    "leave one of the two out",
                ),
                Option("hcl_beta", hcl_beta, is_number(hcl_beta, 0), "a number of at least 0"),
                Option("channel_dropout_prob", channel_dropout_prob, is_number(channel_dropout_prob, 0, 1), "0 to 1"),
                Option("cache_pool_bytes", cache_pool_bytes, is_count(cache_pool_bytes), "bytes, at least 0"),
            ],
        )
        self.plan = BatchPlan(
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
            neighbor_fraction=neighbor_fraction,
            locality=locality,
        )
        self._dropout = ChannelDropout(channel_dropout_channels or [], channel_dropout_prob)
        self._default_dropout = channel_dropout_channels is None
        self.experiments_yaml, self.index_path = str(experiments_yaml), index_path
        self.val_experiments, self.predict_experiments = list(val_experiments), predict_experiments
        self.tau_range, self.tau_decay_rate, self.positive_scope = tuple(tau_range), tau_decay_rate, positive_scope
        self.hcl_beta, self.cache_pool_bytes, self.return_negative = hcl_beta, cache_pool_bytes, return_negative
        self.training_channels, self.dask_address = training_channels, dask_address
        self.include_wells, self.exclude_fovs, self.val_split = include_wells, exclude_fovs, val_split
        self.neighbor_embeddings, self.n_neighbors = neighbor_embeddings, n_neighbors
        self.neighbor_obsm = neighbor_obsm
        self._registry: ExperimentRegistry | None = None

    @property
    def registry(self) -> ExperimentRegistry:
        """The experiments, read when first asked for."""
        if self._registry is None:
            channels = self.training_channels
            registry = ExperimentRegistry.from_yaml(self.experiments_yaml, channels, storage=self.storage)
            if left_out := self.leave_out(registry.left_out):
                registry = registry.without(left_out)
            self._registry = registry
        return self._registry

    def channel_keys(self) -> list[str]:
        """Name the channels by position: ``ch_0``, ``ch_1``, ..."""
        return self.registry.channel_keys()

    def channel_dropout(self) -> ChannelDropout:
        """Return what hides channels: the second one by default."""
        n_channels = self.registry.num_source_channels
        if self._default_dropout and n_channels > 1:
            self._dropout.channels = [1]
        beyond = [channel for channel in self._dropout.channels if channel >= n_channels]
        if beyond:
            raise InputError(
                type(self).__name__,
                field="channel_dropout_channels",
                found=f"channel {beyond[0]}",
                expected=f"positions of the {n_channels} channels, counted from 0",
            )
        return self._dropout

    def setup(self, stage: str | None = None) -> None:
        """Read experiments and tracks, and check what the config asks of them; see :class:`BatchDataModule`."""
        if stage in (None, "fit"):
            refuse_overfit_batches(self.trainer)
            compare_beta(self.trainer, self.hcl_beta)
            compare_leak(self.trainer, self.plan)
        compare_input(self.trainer, self.registry.num_source_channels, self.window.final_size[0])
        super().setup(stage)

    def fit_datasets(self) -> tuple[MultiExperimentTripletDataset, MultiExperimentTripletDataset | None]:
        """Split the experiments, or every one of them."""
        split = ExperimentSplit.of(self.registry, self.val_experiments, type(self).__name__)
        index = self._make_index(self.registry, self.tau_range)
        raise_all(index.misfits(self.window.read_size[1:]))  # also where nothing is augmented, and only less is read
        if self.val_split is not None:
            to_validate = self.val_split.rows(index, self.seed)
            train_index, val_index = index.part(~to_validate), index.part(to_validate)
            validated = f"some {self.val_split.by}s of each"
        else:
            train_index = index.subset(split.train) if split.val else index
            val_index = index.subset(split.val) if split.val else None
            validated = ", ".join(split.val)
        check_balance(train_index, self.plan, self.experiments_yaml)
        train = self._make_dataset(train_index, augmented=True)
        val = None if val_index is None else self._make_dataset(val_index)
        _logger.info(
            "training on %d anchors of %s; validating on %s",
            len(train),
            ", ".join(split.train),
            "nothing" if val is None else f"{len(val)} anchors of {validated}",
        )
        return train, val

    def evaluation_dataset(self) -> MultiExperimentTripletDataset:
        """Read what is validated on alone."""
        check_known(self.val_experiments, self.registry, "val_experiments", type(self).__name__)
        if self.val_split is not None:
            index = self._make_index(self.registry, self.tau_range)
            return self._make_dataset(index.part(self.val_split.rows(index, self.seed)))
        if not self.val_experiments:
            raise InputError(
                type(self).__name__,
                field="val_experiments",
                found="none",
                expected="experiments to evaluate on",
                fix="name some, or set val_split",
            )
        return self._make_dataset(self._index_of(self.val_experiments, self.tau_range))

    def prediction_dataset(self) -> MultiExperimentTripletDataset:
        """Read all observations of the experiments to predict."""
        names = self.predict_experiments or self.registry.names
        check_known(names, self.registry, "predict_experiments", type(self).__name__)
        # Nothing is paired in a prediction: no cell, and no experiment, is left out for want of a positive.
        return self._make_dataset(self._index_of(names, (0.0, 0.0)), fit=False)

    def _index_of(self, names: Iterable[str], tau_range: tuple[float, float]) -> MultiExperimentIndex:
        """Return an index of some experiments; a saved one is of all of them."""
        if self.index_path is not None:
            return self._make_index(self.registry, tau_range).subset(names)
        return self._make_index(self.registry.subset(names), tau_range)

    def _make_index(self, registry: ExperimentRegistry, tau_range: tuple[float, float]) -> MultiExperimentIndex:
        options = {
            "z_range": self.window.slices,
            "yx_patch_size": self.window.final_size[1:],
            "tau_range_hours": tau_range,
            "include_wells": self.include_wells,
            "exclude_fovs": self.exclude_fovs,
            "positive_scope": self.positive_scope,
            "max_border_shift": self.window.max_border_shift,
        }
        if self.index_path is not None:
            return MultiExperimentIndex.load(self.index_path, registry, **options)
        return MultiExperimentIndex(registry, dask_address=self.dask_address, **options)

    def _make_dataset(
        self, index: MultiExperimentIndex, *, fit: bool = True, augmented: bool = False
    ) -> MultiExperimentTripletDataset:
        return MultiExperimentTripletDataset(
            index,
            fit=fit,
            tau_decay_rate=self.tau_decay_rate,
            return_negative=self.return_negative,
            cache_pool_bytes=self.cache_pool_bytes,
            seed=self.seed,
            collate_statistics=True,
            read_yx_patch_size=self.read_size(augmented=augmented),
            patch_store=self.patch_store,
        )

    def train_sampler(self, world: World | None = None) -> FlexibleBatchSampler:
        """Return what composes the training batches, of a lone process by default."""
        index = self.train_dataset.index
        columns = ["experiment", "fov_name", "track_id", "t", "condition", "hours_post_infection", "lineage_id"]
        anchors = index.tracks[columns].iloc[index.anchor_rows]
        plan, near = self.plan, None
        if plan.batch_size != self.batch_size:
            plan = dataclasses.replace(plan, batch_size=self.batch_size)
        if self.neighbor_embeddings is not None:
            from dynaclr.neighbors import anchor_neighbors

            near = anchor_neighbors(anchors, self.neighbor_embeddings, self.n_neighbors, self.neighbor_obsm)
        return FlexibleBatchSampler.from_plan(
            anchors, plan, world, self.seed, columns=AnchorColumns(lineage="lineage_id"), neighbors=near
        )

    def n_anchors(self) -> dict[str, int]:
        """Count the anchors of each training experiment."""
        if self.train_dataset is None:
            return {}
        index = self.train_dataset.index
        counts = index.tracks["experiment"].iloc[index.anchor_rows].value_counts(sort=False)
        return {str(name): int(count) for name, count in counts.items() if count}
