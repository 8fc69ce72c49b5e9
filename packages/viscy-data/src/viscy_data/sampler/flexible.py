"""Which anchors make a batch: any combination of experiment, leak, condition and time, from any table.

>>> import pandas as pd
>>> table = pd.DataFrame({"experiment": ["a"] * 8 + ["b"] * 8, "condition": ["x", "y"] * 8})
>>> batches = FlexibleBatchSampler(table, batch_size=4)
>>> len(batches), len(batches.batch(0))
(4, 4)
>>> table["condition"].iloc[batches.batch(0)].value_counts().to_dict()
{'x': 2, 'y': 2}
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from viscy_data.distributed import ResumableSampler, World
from viscy_data.sampler.compose import BatchComposer
from viscy_data.sampler.epoch import Epoch
from viscy_data.sampler.groups import AnchorColumns, AnchorGroups, lineage_codes
from viscy_data.sampler.plan import BatchPlan
from viscy_data.sampler.tally import Tally

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FlexibleBatchSampler"]

_logger = logging.getLogger(__name__)


class FlexibleBatchSampler(ResumableSampler):
    """Compose batches of anchors along several axes at once.

    Every batch holds exactly ``batch_size`` anchors and is a pure function of (seed, epoch, batch number): any batch
    can be asked for directly, every rank makes only its own, the sequence does not depend on the number of ranks, and
    resuming is setting a number. By type it is a distributed sampler, so that Lightning leaves it in place and
    announces each epoch; give it to a loader as ``sampler`` (see :class:`~viscy_data.loaders.BatchLoader`).

    Parameters
    ----------
    valid_anchors : pandas.DataFrame
        One row per anchor. Batches are positions in it, whatever its index. It is not kept.
    batch_size : int, default 128
        Anchors per batch.
    experiment_aware : bool, default True
        Take each batch from one experiment.
    leaky : float, default 0.0
        Fraction of each batch, in [0, 1) and rounded down to whole anchors, from the other experiments, in proportion
        to their sizes. None when there is only one experiment.
    experiment_weights : mapping of str to float, optional
        Share of the batches of each experiment; those left out get none. By default in proportion to size.
    condition_balanced : bool, default True
        Give every condition the same share, or that of ``condition_ratio``, inside each part of a batch: own and
        leaked, focal and global. Rows without a condition form the condition "unknown". Where an experiment lacks a
        condition the others share its part.
    condition_ratio : mapping of str to float, optional
        Shares of conditions; those left out divide the rest equally.
    temporal_enrichment : bool, default False
        Concentrate each batch around the time of a random anchor of its experiment: frames with more anchors lead more
        often.
    temporal_window_hours : float, default 2.0
        Half width of the window, both ends included, in units of the time column.
    temporal_global_fraction : float, default 0.3
        Fraction, rounded down to whole anchors, from outside of the window.
    num_replicas : int or None, default 1
        Number of ranks; None asks ``torch.distributed`` when it is needed.
    rank : int or None, default 0
        This rank; None asks ``torch.distributed`` when it is needed.
    seed : int, default 0
        At least 0; equal on all ranks.
    drop_last : bool, default True
        Without it, one more batch covers the anchors beyond a multiple of the batch size; it is as large as the others.
    experiment_column, condition_column, time_column : str
        Names of the columns; only those of the axes in use need exist.
    lineage_column : str, optional
        Column by which ``max_per_lineage`` counts.
    max_per_lineage : int, optional
        Most anchors of one lineage in a batch.
    neighbors : array_like of int, shape (N, k), optional
        Positions of each anchor's near neighbours in some embedding, nearest first, -1 for none.
    neighbor_fraction : float, default 0.0
        Fraction of each batch, rounded down, that is replaced by near neighbours of other anchors in it (hard
        negatives). A neighbour only takes the place of an anchor of the same experiment, condition and side of the
        window.
    locality : int, default 1
        How many anchors are drawn together from neighbouring places: those of one FOV and frame, then of the next
        frame. Such a batch is read from fewer images, and holds more cells that look alike. 1 draws each by itself.
    frame_columns : sequence of str, default ("experiment", "fov_name", "t")
        Columns in which anchors of one image agree, for ``locality``.

    Raises
    ------
    InputError
        For numbers out of range, unknown names (with near matches), missing columns, times that are not finite.

    Notes
    -----
    Anchors of one experiment and condition are drawn without replacement until all have been used, within an epoch;
    so a plain epoch reaches every anchor once. Leaked anchors form sequences of their own with the same property. With
    ``temporal_enrichment`` it holds inside a batch only, since the pool is another one in each batch; and
    ``max_per_lineage`` and ``neighbors`` exchange anchors after the draw.

    What a pool cannot satisfy falls back, counted in :meth:`stats`: anchors missing on one side of the window come from
    the other side, of the same condition; then anchors repeat. Fewer anchors than one batch make one batch with
    repeats, and a warning.

    With several ranks, batch ``number`` belongs to rank ``number % num_replicas``; the last round wraps around to the
    first batches, so that all ranks have the same number. An epoch can be gone on with from any batch, with any number
    of ranks (``start``).
    """

    def __init__(
        self,
        valid_anchors: pd.DataFrame,
        batch_size: int = 128,
        experiment_aware: bool = True,
        leaky: float = 0.0,
        experiment_weights: Mapping[str, float] | None = None,
        condition_balanced: bool = True,
        condition_ratio: Mapping[str, float] | None = None,
        temporal_enrichment: bool = False,
        temporal_window_hours: float = 2.0,
        temporal_global_fraction: float = 0.3,
        num_replicas: int | None = 1,
        rank: int | None = 0,
        seed: int = 0,
        drop_last: bool = True,
        *,
        experiment_column: str = "experiment",
        condition_column: str = "condition",
        time_column: str = "hours_post_infection",
        lineage_column: str | None = None,
        max_per_lineage: int | None = None,
        neighbors: ArrayLike | None = None,
        neighbor_fraction: float = 0.0,
        locality: int = 1,
        frame_columns: Sequence[str] = ("experiment", "fov_name", "t"),
    ) -> None:
        plan = BatchPlan(
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
        columns = AnchorColumns(experiment_column, condition_column, time_column, lineage_column, tuple(frame_columns))
        self._prepare(valid_anchors, plan, (num_replicas, rank), seed, drop_last, columns, neighbors)

    @classmethod
    def from_plan(
        cls,
        valid_anchors: pd.DataFrame,
        plan: BatchPlan,
        world: World | None = None,
        seed: int = 0,
        *,
        drop_last: bool = True,
        columns: AnchorColumns | None = None,
        neighbors: ArrayLike | None = None,
    ) -> FlexibleBatchSampler:
        """Make a sampler of a plan that is at hand.

        Parameters
        ----------
        valid_anchors : pandas.DataFrame
            One row per anchor.
        plan : BatchPlan
            What a batch is made of.
        world : World, optional
            Number of ranks and this one; a lone process by default.
        seed, drop_last, neighbors
            As for the class.
        columns : AnchorColumns, optional
            Names of the columns.

        Examples
        --------
        >>> import pandas as pd
        >>> table = pd.DataFrame({"experiment": ["a"] * 8 + ["b"] * 8, "condition": ["x", "y"] * 8})
        >>> len(FlexibleBatchSampler.from_plan(table, BatchPlan(batch_size=4), World(size=2, rank=1)))
        2
        """
        sampler = cls.__new__(cls)
        world = World() if world is None else world
        columns = AnchorColumns() if columns is None else columns
        sampler._prepare(valid_anchors, plan, (world.size, world.rank), seed, drop_last, columns, neighbors)
        return sampler

    def _prepare(
        self,
        table: pd.DataFrame,
        plan: BatchPlan,
        world: tuple[int | None, int | None],
        seed: int,
        drop_last: bool,
        columns: AnchorColumns,
        neighbors: ArrayLike | None,
    ) -> None:
        # The parent's constructor wants a dataset of single items; its type and attributes are what matters here.
        self._world = world
        World(self.num_replicas, self.rank)
        if seed < 0:
            raise ValueError(f"seed must be at least 0, found {seed}.")
        self.seed, self.epoch, self.drop_last, self.shuffle = int(seed), 0, bool(drop_last), True
        groups = AnchorGroups.from_table(
            table,
            experiment=columns.experiment if plan.experiment_aware else None,
            condition=columns.condition if plan.condition_balanced else None,
            time=columns.time if plan.temporal_enrichment else None,
            frame=columns.frame if plan.locality > 1 else (),
        )
        self.n_anchors = len(groups.order)
        if self.n_anchors < plan.batch_size:
            _logger.warning(
                "%d anchors are fewer than a batch of %d: every epoch is one batch with repeats.",
                self.n_anchors,
                plan.batch_size,
            )
        counted = columns.lineage is not None and plan.max_per_lineage is not None
        lineage = lineage_codes(table, columns.lineage) if counted else None
        self._composer = BatchComposer(groups, plan, lineage, neighbors)
        self._tally = Tally(self._composer)
        self._epoch: tuple[int, Epoch] | None = None

    @property
    def sampler(self) -> FlexibleBatchSampler:
        """Return itself: where Lightning looks for ``set_epoch`` when it is used as a batch sampler."""
        return self

    @property
    def batch_size(self) -> int:
        """Anchors per batch."""
        return self._composer.plan.batch_size

    @property
    def num_replicas(self) -> int:
        """Number of ranks."""
        return World.detect().size if self._world[0] is None else self._world[0]

    @property
    def rank(self) -> int:
        """Which rank this is."""
        return World.detect().rank if self._world[1] is None else self._world[1]

    @property
    def n_batches(self) -> int:
        """Batches of an epoch over all ranks."""
        whole, rest = divmod(self.n_anchors, self.batch_size)
        return max(1, whole + (rest > 0 and not self.drop_last))

    def batch(self, number: int, epoch: int | None = None) -> NDArray[np.int64]:
        """Compose one batch.

        Parameters
        ----------
        number : int
            Number in the epoch over all ranks, below ``n_batches``.
        epoch : int, optional
            The present one by default.

        Returns
        -------
        ndarray of int64, shape (batch_size,)
            Positions of anchors.

        Raises
        ------
        IndexError
            If there is no such batch.
        """
        if not 0 <= number < self.n_batches:
            raise IndexError(f"There is no batch {number} in an epoch of {self.n_batches}.")
        batch = self._composer.compose(self._epoch_plan(self.epoch if epoch is None else epoch), number)
        if (fallbacks := self._tally.add(batch)) is not None:
            _logger.info("The anchors cannot satisfy every batch: %s (counted in stats()).", fallbacks)
        return self._composer.groups.order[batch.places].astype(np.int64)

    def stats(self) -> dict[str, Any]:
        """Compare what was asked for with what was delivered, over the batches this object has composed.

        Returns
        -------
        dict
            ``batches`` and ``anchors`` drawn; ``experiment`` (batches of each), ``condition`` (anchors of each),
            ``leaky``, ``temporal`` and ``neighbors`` (anchors), each with "asked" and "delivered"; ``fallbacks``:
            anchors from the other side of the window, repeats because a pool is too small, anchors beyond
            ``max_per_lineage``, neighbours that could not be found.
        """
        return self._tally.report()

    def coverage(self, epoch: int = 0) -> float:
        """Share of the anchors that an epoch reaches, over all ranks (composes the whole epoch)."""
        plan = self._epoch_plan(epoch)
        reached = np.zeros(self.n_anchors, dtype=bool)
        for number in range(self.n_batches):
            reached[self._composer.compose(plan, number).places] = True
        return float(reached.mean())

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be made again."""
        return {**self.__dict__, "_epoch": None}

    def _epoch_plan(self, epoch: int) -> Epoch:
        """Make the plan of an epoch, or take the last one made."""
        cached = self._epoch
        if cached is None or cached[0] != epoch:
            cached = (epoch, Epoch(self.seed, epoch, self.n_batches, self._composer.experiment_shares))
            self._epoch = cached
        return cached[1]
