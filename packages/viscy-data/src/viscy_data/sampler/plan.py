"""What a batch is to be made of: options, checked once, and the shares and counts that follow from them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viscy_data.checks import Option, check_options, is_count, is_number, near_matches
from viscy_data.errors import InputError, raise_all
from viscy_data.sampler.rounding import whole_part

__all__ = ["BatchPlan"]

_WHERE = "composition of batches"
_BELOW_ONE = "a number of at least 0 and below 1"


@dataclass(frozen=True)
class BatchPlan:
    """The axes of a batch.

    The parameters are those of :class:`~viscy_data.sampler.FlexibleBatchSampler`.

    Raises
    ------
    InputError
        With all numbers that are out of their ranges.

    Warns
    -----
    UserWarning
        If an option is set whose axis is off, so that it has no effect.
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
    locality: int = 1

    def __post_init__(self) -> None:
        leaky, near, spread = self.leaky, self.neighbor_fraction, self.temporal_global_fraction
        hours, per_lineage = self.temporal_window_hours, self.max_per_lineage
        limit_holds = per_lineage is None or is_count(per_lineage, 1)
        options = [
            Option("batch_size", self.batch_size, is_count(self.batch_size, 1), "a whole number of at least 1"),
            Option("leaky", leaky, is_number(leaky, 0, 1) and leaky < 1, _BELOW_ONE),
            Option("temporal_window_hours", hours, is_number(hours, 0), "a number of at least 0"),
            Option("temporal_global_fraction", spread, is_number(spread, 0, 1), "a number from 0 to 1"),
            Option("neighbor_fraction", near, is_number(near, 0, 1) and near < 1, _BELOW_ONE),
            Option("locality", self.locality, is_count(self.locality, 1), "a whole number of at least 1"),
            Option("max_per_lineage", per_lineage, limit_holds, "a whole number of at least 1, or none"),
        ]
        raise_all(check_options(_WHERE, options))
        for needs, option in (
            ("experiment_aware", "leaky"),
            ("experiment_aware", "experiment_weights"),
            ("condition_balanced", "condition_ratio"),
        ):
            if getattr(self, option) and not getattr(self, needs):
                warnings.warn(
                    f"{option} has no effect without {needs}: turn {needs} on, or leave {option} out", stacklevel=3
                )

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
        InputError
            For unknown names, negative or non-finite weights, or when none is positive.
        """
        if not self.experiment_weights or not self.experiment_aware:
            return sizes / sizes.sum()
        weights = _values("experiment_weights", self.experiment_weights, names)
        shares = np.array([weights.get(name, 0.0) for name in names])
        _require(shares.sum() > 0, "experiment_weights", self.experiment_weights, "a positive weight for one at least")
        return shares / shares.sum()

    def condition_shares(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Share of each condition: as given, the rest divided equally among the conditions left out.

        Raises
        ------
        InputError
            For unknown names, negative or non-finite ratios, a sum above 1 (or below 1 when all are given).
        """
        given = _values("condition_ratio", self.condition_ratio or {}, names)
        total, left_out = sum(given.values()), len(names) - len(given)
        _require(
            total <= 1 + 1e-6 and (left_out or total >= 1 - 1e-6),
            "condition_ratio",
            self.condition_ratio,
            "fractions that add up to 1, or to less when conditions are left out, which then share the rest",
        )
        rest = max(0.0, 1.0 - total) / max(1, left_out)
        shares = np.array([given.get(name, rest) for name in names])
        return shares / shares.sum()


def _require(holds: bool, name: str, found: object, expected: str) -> None:
    raise_all(check_options(_WHERE, [Option(name, found, holds, expected)]))


def _values(option: str, given: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    for name, value in given.items():
        if str(name) not in names:
            raise InputError(_WHERE, field=option, found=repr(name), expected=near_matches(name, names))
        _require(is_number(value, 0), f"{option}[{name!r}]", value, "a number of at least 0")
    return {str(name): float(value) for name, value in given.items()}
