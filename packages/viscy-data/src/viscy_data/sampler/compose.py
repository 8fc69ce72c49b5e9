"""From a plan, sorted anchors and a batch number to a batch.

Two experiments of six anchors, conditions x and y, batches of four of which a quarter leaks. Three anchors are of the
batch's own experiment and one is of the other; each side is balanced, so that the odd anchor changes its condition from
batch to batch:

>>> import pandas as pd
>>> table = pd.DataFrame({"e": ["a"] * 6 + ["b"] * 6, "c": ["x", "x", "x", "y", "y", "y"] * 2})
>>> groups = AnchorGroups.from_table(table, "e", "c")
>>> composer = BatchComposer(groups, BatchPlan(batch_size=4, leaky=0.25))
>>> composer.sizes.tolist()  # own, leaked
[[3], [1]]
>>> epoch = Epoch(0, 0, 3, composer.experiment_shares)
>>> for number in range(3):
...     rows = table.iloc[groups.order[composer.compose(epoch, number).places]]
...     print((rows["e"] + rows["c"]).tolist())
['ax', 'ax', 'ay', 'by']
['bx', 'by', 'by', 'ax']
['bx', 'bx', 'by', 'ay']
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from viscy_data.sampler.draw import Ints, Pools, Requests, draw, settle, whole_pools, windowed_pools
from viscy_data.sampler.epoch import BATCH_SCOPE, Epoch
from viscy_data.sampler.groups import AnchorGroups
from viscy_data.sampler.lineages import LineageLimit
from viscy_data.sampler.neighbors import NearNeighbors
from viscy_data.sampler.plan import BatchPlan
from viscy_data.sampler.rounding import RotatingCounts, whole_part

__all__ = ["Batch", "BatchComposer"]

_POOLS_KEPT = 4096  # a few kilobytes each


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch and what became of the plan in it.

    Attributes
    ----------
    places : ndarray of int64, shape (B,)
        Sorted places of the anchors.
    experiment : int
        The experiment it belongs to.
    parts : ndarray of int64, shape (sides, parts)
        Anchors delivered per part, as :meth:`BatchPlan.sizes` orders them.
    moved, repeated, lineage_surplus, neighbors : int
        Anchors from the other side of the focal window; repeats; beyond ``max_per_lineage``; near neighbours.
    """

    places: Ints
    experiment: int
    parts: Ints
    moved: int
    repeated: int
    lineage_surplus: int
    neighbors: int


class BatchComposer:
    """Compose any batch of any epoch; keeps nothing but what can be made again.

    Parameters
    ----------
    groups : AnchorGroups
        The sorted anchors.
    plan : BatchPlan
        What a batch is made of.
    lineage : ndarray of int, shape (N,), optional
        Lineage codes by position; needed for ``max_per_lineage``.
    neighbors : array_like of int, shape (N, k), optional
        Positions of near neighbours, nearest first, -1 for none; needed for ``neighbor_fraction``.

    Raises
    ------
    ValueError
        If the plan and what it needs do not come together.
    """

    def __init__(
        self,
        groups: AnchorGroups,
        plan: BatchPlan,
        lineage: NDArray[np.integer] | None = None,
        neighbors: ArrayLike | None = None,
    ) -> None:
        self.groups, self.plan = groups, plan
        sizes = groups.sizes
        self.experiment_shares = plan.experiment_shares(groups.experiments, sizes.sum(axis=1))
        balanced = plan.condition_balanced
        self.condition_shares = plan.condition_shares(groups.conditions) if balanced else np.ones(1)
        self.sizes = plan.sizes(len(sizes))
        self._leaky = len(self.sizes) > 1
        self._pools: dict[tuple[float | None, int], Pools] = {}
        self._blocks = [(int(block[0, 0]), int(block[-1, 1])) for block in groups.edges]
        self._rotations = self._all_rotations(sizes)
        limit, wanted = plan.max_per_lineage, whole_part(plan.batch_size, plan.neighbor_fraction)
        if limit is not None and lineage is None:
            raise ValueError(
                "max_per_lineage needs lineage_column, the column that tells which lineage an anchor is of"
            )
        if (neighbors is None) != (plan.neighbor_fraction == 0):
            raise ValueError("neighbors and neighbor_fraction need each other: give both or none")
        self._limit = None if limit is None else LineageLimit(lineage[groups.order], limit)
        self._near = None if neighbors is None else NearNeighbors(neighbors, groups.order, wanted)

    def _all_rotations(self, sizes: Ints) -> list[RotatingCounts]:
        """Round the shares of each experiment; experiments with the same conditions share the counts."""
        made: dict[bytes, RotatingCounts] = {}
        rotations = []
        for own in sizes:
            sides = (own, sizes.sum(axis=0) - own)[: len(self.sizes)]
            shares = np.stack([self._available(pool) for pool in sides])
            if shares.tobytes() not in made:
                made[shares.tobytes()] = RotatingCounts(self.sizes, shares)
            rotations.append(made[shares.tobytes()])
        return rotations

    def _available(self, pool: Ints) -> NDArray[np.float64]:
        """Shares of the conditions that a pool has; by size where none of them is wanted."""
        shares = np.where(pool > 0, self.condition_shares, 0.0)
        shares = shares if shares.sum() > 0 else pool.astype(np.float64)
        return shares / max(1e-300, shares.sum())

    def compose(self, epoch: Epoch, number: int) -> Batch:
        """Compose batch ``number`` of an epoch."""
        experiment, earlier, phase = epoch.place(number)
        ask = self._ask_window if self.plan.temporal_enrichment else self._ask
        pools, requests, moved = ask(epoch, number, experiment, earlier, phase)
        places, request, repeated = draw(pools, requests, self.plan.locality)
        came, surplus = None, 0
        if self._near is not None:
            n_own = self.sizes.shape[1] * self.groups.edges.shape[1]
            places, came = self._near.apply(places, request, pools, n_own, epoch.batch_key(number))
        if self._limit is not None:
            before = places
            places, surplus = self._limit.apply(places, request, pools, epoch.batch_key(number))
            came = None if came is None else came & (places == before)
            repeated = len(places) - len(np.unique(places)) if repeated else 0
        parts = requests.counts.reshape(*self.sizes.shape, -1).sum(axis=2)
        n_came = 0 if came is None else int(came.sum())
        return Batch(places, experiment, parts, moved, repeated, surplus, n_came)

    def _ask(self, epoch: Epoch, number: int, experiment: int, earlier: int, phase: int) -> tuple[Pools, Requests, int]:
        """Go on in the sequences of the batch's experiment, after what its earlier batches of the epoch took."""
        rotation = self._rotations[experiment]
        counts = rotation.counts(phase + earlier).ravel()
        first = (rotation.used(phase + earlier) - rotation.used(phase)).ravel()
        keys = epoch.keys(experiment, len(counts))
        return self._pools_of(None, experiment), Requests(counts, first, rotation.largest.ravel(), keys), 0

    def _ask_window(
        self, epoch: Epoch, number: int, experiment: int, earlier: int, phase: int
    ) -> tuple[Pools, Requests, int]:
        """Draw from either side of the window around the time of a random anchor."""
        first, end = self._blocks[experiment]
        focal_time = self.groups.time_at(first + epoch.batch_key(number) % (end - first))
        pools = self._pools_of(focal_time, experiment)
        asked = self._rotations[experiment].counts(phase + earlier)
        taken, moved = settle(asked, pools.sizes.reshape(asked.shape))
        counts = taken.ravel()
        keys = epoch.keys(BATCH_SCOPE + number, len(counts))
        return pools, Requests(counts, np.zeros_like(counts), counts, keys), moved

    def _pools_of(self, focal_time: float | None, experiment: int) -> Pools:
        """Pools of an experiment, around a time or whole: there are few, and each serves many batches."""
        pools = self._pools.get((focal_time, experiment))
        if pools is None:
            edges = self.groups.edges
            if focal_time is None:
                pools = whole_pools(edges, experiment, self._leaky)
            else:
                window = self.groups.window(focal_time, self.plan.temporal_window_hours)
                pools = windowed_pools(edges, window, experiment, self._leaky)
            if len(self._pools) < _POOLS_KEPT:
                self._pools[focal_time, experiment] = pools
        return pools
