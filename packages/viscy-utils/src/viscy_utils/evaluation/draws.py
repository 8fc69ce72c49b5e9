"""Rows drawn at random, where a measure or a picture of all of them would take too long."""

from __future__ import annotations

import numpy as np

__all__ = ["draw_rows"]


def draw_rows(n_rows: int, n_wanted: int, seed: int) -> np.ndarray:
    """Draw rows without replacement, in order; all of them where there are not more.

    Returns
    -------
    ndarray of int64, shape (min(n_rows, n_wanted),)
    """
    if n_rows <= n_wanted:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).choice(n_rows, n_wanted, replace=False))
