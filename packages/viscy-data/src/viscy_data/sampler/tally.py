"""Shares asked for beside shares delivered."""

from __future__ import annotations

from typing import Any

import numpy as np

from viscy_data.sampler.compose import Batch, BatchComposer
from viscy_data.sampler.rounding import whole_part

__all__ = ["Tally"]

_FALLBACKS = ("outside_window", "repeats", "lineage_surplus", "neighbors_missing")


class Tally:
    """Count what the batches drawn so far contain.

    Parameters
    ----------
    composer : BatchComposer
        Where the batches come from.
    """

    def __init__(self, composer: BatchComposer) -> None:
        self._composer = composer
        shape = composer.groups.edges.shape[:2]
        self._n_batches = 0
        self._strata = np.zeros(shape[0] * shape[1], dtype=np.int64)
        self._batches_of = np.zeros(shape[0], dtype=np.int64)
        self._parts = np.zeros_like(composer.sizes)
        self._neighbors = 0
        self._fallbacks = dict.fromkeys(_FALLBACKS, 0)

    def add(self, batch: Batch) -> str | None:
        """Count a batch.

        Returns
        -------
        str or None
            The names of the fall-backs that happened for the first time.
        """
        groups, plan = self._composer.groups, self._composer.plan
        self._n_batches += 1
        self._strata += np.bincount(groups.stratum(batch.places), minlength=len(self._strata))
        self._batches_of[batch.experiment] += 1
        self._parts += batch.parts
        self._neighbors += batch.neighbors
        missing = whole_part(plan.batch_size, plan.neighbor_fraction) - batch.neighbors
        new = []
        counts = (batch.moved, batch.repeated, batch.lineage_surplus, missing)
        for name, count in zip(_FALLBACKS, counts, strict=True):
            if count and not self._fallbacks[name]:
                new.append(name)
            self._fallbacks[name] += count
        return ", ".join(new) or None

    def report(self) -> dict[str, Any]:
        """Summarise: see :meth:`~viscy_data.sampler.FlexibleBatchSampler.stats`."""
        composer, n_batches = self._composer, self._n_batches
        groups, plan = composer.groups, composer.plan
        strata = self._strata.reshape(groups.edges.shape[:2])
        out: dict[str, Any] = {"batches": n_batches, "anchors": n_batches * plan.batch_size}
        if plan.experiment_aware:
            shares = composer.experiment_shares * n_batches
            out["experiment"] = _beside(groups.experiments, shares, self._batches_of)
        if plan.condition_balanced:
            shares = composer.condition_shares * n_batches * plan.batch_size
            out["condition"] = _beside(groups.conditions, shares, strata.sum(axis=0))
        if plan.experiment_aware:
            asked = plan.leaky * plan.batch_size * n_batches
            delivered = int(self._parts[1:].sum())
            out["leaky"] = {"asked": asked, "delivered": delivered}
        if plan.temporal_enrichment:
            total, wide = plan.batch_size * n_batches, plan.temporal_global_fraction
            names, asked = ("focal", "global"), np.array([1 - wide, wide]) * total
            out["temporal"] = _beside(names, asked, self._parts.sum(axis=0))
        if plan.neighbor_fraction:
            asked = plan.neighbor_fraction * plan.batch_size * n_batches
            out["neighbors"] = {"asked": asked, "delivered": self._neighbors}
        out["fallbacks"] = dict(self._fallbacks)
        return out


def _beside(names: tuple[str, ...], asked: np.ndarray, delivered: np.ndarray) -> dict[str, dict[str, float]]:
    rows = zip(names, asked.tolist(), delivered.tolist(), strict=True)
    return {name: {"asked": wanted, "delivered": found} for name, wanted, found in rows}
