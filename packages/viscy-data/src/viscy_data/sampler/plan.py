"""What a batch is to be made of: options, checked once, and the shares and counts that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viscy_data.checks import near_matches
from viscy_data.sampler.rounding import whole_part

__all__ = ["BatchPlan"]


@dataclass(frozen=True)
class BatchPlan:
    """The axes of a batch.

    The parameters are those of :class:`~viscy_data.sampler.FlexibleBatchSampler`.

    Raises
    ------
    ValueError
        If a number is out of its range, or an option is set that its axis does not use.
    """

    batch_size: int = 128
    experiment_aware: bool = True
    leaky: float = 0.0
    experiment_weights: Mapping[str, float] | None = None
    condition_balanced: bool = True
    condition_ratio: Mapping[str, float] | None = None
    temporal_enrichment: bool = False
    temporal_window_hours: float = 2.0
    temporal_global_fraction: float = 0.3
    max_per_lineage: int | None = None
    neighbor_fraction: float = 0.0

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _require(0.0 <= self.leaky < 1.0, "leaky", self.leaky, "in [0, 1)")
        _require(self.temporal_window_hours >= 0.0, "temporal_window_hours", self.temporal_window_hours, "at least 0")
        fraction = self.temporal_global_fraction
        _require(0.0 <= fraction <= 1.0, "temporal_global_fraction", fraction, "in [0, 1]")
        _require(0.0 <= self.neighbor_fraction < 1.0, "neighbor_fraction", self.neighbor_fraction, "in [0, 1)")
        per_lineage = self.max_per_lineage
        _require(per_lineage is None or per_lineage >= 1, "max_per_lineage", per_lineage, "at least 1, or None")
        for needs, option, is_set in (
            ("experiment_aware", "leaky", not self.experiment_aware and self.leaky > 0),
            ("experiment_aware", "experiment_weights", not self.experiment_aware and bool(self.experiment_weights)),
            ("condition_balanced", "condition_ratio", not self.condition_balanced and bool(self.condition_ratio)),
        ):
            if is_set:
                raise ValueError(f"{option} has no effect without {needs}: turn {needs} on, or leave {option} out.")

    def sizes(self, n_experiments: int) -> NDArray[np.int64]:
        """Sizes of the parts of a batch.

        Fractions are rounded down; there is no leak without another experiment.

        Returns
        -------
        ndarray of int64, shape (sides, parts)
            Sides: own and, when there is a leak, leaked. Parts: all, or focal and global under enrichment.
        """
        leaked = whole_part(self.batch_size, self.leaky) if n_experiments > 1 else 0
        sides = [self.batch_size - leaked, leaked][: 2 if leaked else 1]
        if not self.temporal_enrichment:
            return np.array(sides)[:, None]
        spread = [whole_part(size, self.temporal_global_fraction) for size in sides]
        return np.array([[size - n, n] for size, n in zip(sides, spread, strict=True)])

    def experiment_shares(self, names: Sequence[str], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of the batches of each experiment: its weight, or its size; names left out weigh nothing.

        Raises
        ------
        ValueError
            For unknown names, negative or non-finite weights, or when none is positive.
        """
        if not self.experiment_weights:
            return sizes / sizes.sum()
        weights = _values("experiment_weights", self.experiment_weights, names)
        shares = np.array([weights.get(name, 0.0) for name in names])
        _require(shares.sum() > 0, "experiment_weights", dict(self.experiment_weights), "positive for one at least")
        return shares / shares.sum()

    def condition_shares(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Share of each condition: as given, the rest divided equally among the conditions left out.

        Raises
        ------
        ValueError
            For unknown names, negative or non-finite ratios, a sum above 1 (or below 1 when all are given).
        """
        given = _values("condition_ratio", self.condition_ratio or {}, names)
        total, left_out = sum(given.values()), len(names) - len(given)
        _require(
            total <= 1 + 1e-6 and (left_out or total >= 1 - 1e-6),
            "condition_ratio",
            dict(self.condition_ratio or {}),
            "fractions that add up to 1, or to less when conditions are left out, which then share the rest",
        )
        rest = max(0.0, 1.0 - total) / max(1, left_out)
        shares = np.array([given.get(name, rest) for name in names])
        return shares / shares.sum()


def _require(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}, found {found}.")


def _values(option: str, given: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    for name, value in given.items():
        if str(name) not in names:
            raise ValueError(f"{option} names {name!r}, which no anchor has: {near_matches(name, names)}")
        _require(np.isfinite(value) and value >= 0, f"{option}[{name!r}]", value, "a number of at least 0")
    return {str(name): float(value) for name, value in given.items()}
