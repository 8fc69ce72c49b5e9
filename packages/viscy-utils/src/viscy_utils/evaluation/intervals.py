"""Intervals of figures when whole units, such as lineages, are drawn with replacement: their cells are not independent.

Efron and Tibshirani, "An introduction to the bootstrap" (1993), with clusters as the units that are drawn.
"""

from __future__ import annotations

import numpy as np

__all__ = ["draw_units", "mean_by_unit", "percentile_interval"]


def draw_units(units: np.ndarray, seed: int, n_draws: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Draw units with replacement.

    Parameters
    ----------
    units : ndarray, shape (N,)
        Independent unit per cell.
    seed : int
    n_draws : int, default 500

    Returns
    -------
    codes : ndarray of int64, shape (N,)
        Number of the unit of each cell, from 0 to U - 1.
    weights : ndarray of int64, shape (n_draws, U)
        How often each unit was drawn; every row sums to U.
    """
    codes = np.unique(units, return_inverse=True)[1]
    n_units = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    return codes, rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_draws)


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of draws, NaN left out; NaN where no draw has a value."""
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def mean_by_unit(
    values: np.ndarray, units: np.ndarray, seed: int, weights: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Return the mean of values over cells, and its 95 % interval over units.

    Parameters
    ----------
    values : ndarray of float, shape (N,)
    units : ndarray, shape (N,)
    seed : int
    weights : ndarray of float, shape (N,), optional
        Of the cells; equal by default.
    """
    weights = np.ones(len(values)) if weights is None else weights
    codes, drawn = draw_units(units, seed)
    sums, totals = np.bincount(codes, values * weights), np.bincount(codes, weights)
    return float(sums.sum() / totals.sum()), *percentile_interval((drawn @ sums) / (drawn @ totals))
