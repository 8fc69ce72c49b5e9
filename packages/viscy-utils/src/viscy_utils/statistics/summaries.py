"""Summary statistics of pixel values, and mapping over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["get_val_stats", "mp_get_val_stats", "mp_wrapper"]


def mp_wrapper(fn: Callable[..., Any], fn_args: Iterable[tuple], workers: int) -> list[Any]:
    """Call a function with each tuple of arguments, in processes.

    Parameters
    ----------
    fn : callable
        Picklable, at module level.
    fn_args : iterable of tuple
        Positional arguments of each call.
    workers : int
        Number of processes.

    Returns
    -------
    list
        Results in the order of ``fn_args``.
    """
    with ProcessPoolExecutor(workers) as executor:
        return list(executor.map(fn, *zip(*fn_args, strict=True)))


def mp_get_val_stats(fn_args: Iterable[ArrayLike], workers: int) -> list[dict[str, float]]:
    """Compute :func:`get_val_stats` of each array, in processes."""
    with ProcessPoolExecutor(workers) as executor:
        return list(executor.map(get_val_stats, fn_args))


def get_val_stats(sample_values: ArrayLike) -> dict[str, float]:
    """Summarise the finite values of an array.

    Parameters
    ----------
    sample_values : array_like
        Any shape; NaN and infinities are left out.

    Returns
    -------
    dict
        Floats ``mean``, ``std`` (population), ``median``, ``iqr``, ``p5``, ``p95``, ``p95_p5``, ``p1``, ``p99``,
        ``p99_p1``; differences are upper minus lower percentile.

    Raises
    ------
    ValueError
        If no value is finite.

    Examples
    --------
    >>> stats = get_val_stats([0.0, 1.0, 2.0, float("nan")])
    >>> stats["mean"], stats["iqr"]
    (1.0, 1.0)
    """
    values = np.asarray(sample_values)
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise ValueError("no finite value to summarise")
    p1, p5, p25, p50, p75, p95, p99 = (float(p) for p in np.percentile(values, [1, 5, 25, 50, 75, 95, 99]))
    return {
        "mean": float(np.mean(values, dtype=np.float64)),
        "std": float(np.std(values, dtype=np.float64)),
        "median": p50,
        "iqr": p75 - p25,
        "p5": p5,
        "p95": p95,
        "p95_p5": p95 - p5,
        "p1": p1,
        "p99": p99,
        "p99_p1": p99 - p1,
    }
