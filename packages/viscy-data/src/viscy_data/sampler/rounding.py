"""Whole numbers from shares: what each condition gets in each batch.

A batch of 8 over ten conditions cannot give each of them 0.8. Every count is the share rounded down or up, every batch
adds up exactly, and which conditions are rounded up rotates so that the shares are exact in the long run (systematic
sampling with a starting point that steps through all of [0, 1)).

A batch of 8 over shares 0.5, 0.3 and 0.2 has the quotas 4, 2.4 and 1.6. Certain are 4, 2 and 1. The one that is left
goes to the condition in whose stretch of [0, 0.4, 1) the starting point falls, four times in ten to the second:

>>> counts = rotating_counts(8, np.array([0.5, 0.3, 0.2]))
>>> counts[:5].tolist()
[[4, 2, 2], [4, 3, 1], [4, 2, 2], [4, 3, 1], [4, 2, 2]]
>>> (counts.sum(axis=0) / PERIOD).tolist()
[4.0, 2.4, 1.6]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["PERIOD", "RotatingCounts", "rotating_counts", "whole_part"]

PERIOD = 240
"""Batches after which the rotation repeats: a multiple of 2, 3, 4, 5, 6, 8, 10, 12, 15 and 16."""

_STRIDE = 149  # coprime to the period, near its golden section: any run of batches is close to the shares


def whole_part(size: int, fraction: float) -> int:
    """Round ``size * fraction`` down, forgiving the last bits of the product (100 * 0.29 is 29)."""
    return int(np.floor(size * fraction + 1e-9))


def rotating_counts(size: int, shares: NDArray[np.float64], shift: float = 0.0) -> NDArray[np.int64]:
    """Divide ``size`` according to ``shares``, once for each batch of the period.

    Parameters
    ----------
    size : int
        What is to be divided.
    shares : ndarray of float64, shape (n,)
        Add up to 1, or are all zero when ``size`` is.
    shift : float, default 0.0
        Start of the rotation, in turns.

    Returns
    -------
    ndarray of int64, shape (PERIOD, n)
        Every row adds up to ``size``; every count is its quota rounded down or up.
    """
    quota = size * shares
    base = np.floor(quota + 1e-9)
    edges = np.concatenate([[0.0], np.cumsum(np.clip(quota - base, 0.0, None))])
    rest = size - base.sum()
    if edges[-1] > 0:
        edges *= rest / edges[-1]
    edges[-1] = rest
    start = (np.arange(PERIOD) * _STRIDE % PERIOD + 0.5) / PERIOD
    points = np.floor(edges + ((start + shift) % 1.0)[:, None] + 1e-12)
    return (base + np.diff(points, axis=1)).astype(np.int64)


class RotatingCounts:
    """The counts of the parts of a batch, and how much earlier batches have used.

    By the sum of what all earlier batches took, a batch knows where it goes on in the sequence of each condition
    without composing any of them:

    >>> rotation = RotatingCounts(np.array([[8]]), np.array([[0.5, 0.3, 0.2]]))
    >>> rotation.used(5).ravel().tolist(), rotation.used(5000).ravel().tolist()
    ([20, 12, 8], [20000, 12000, 8000])

    Parameters
    ----------
    sizes : ndarray of int64, shape (sides, parts)
        Size of each part.
    shares : ndarray of float64, shape (sides, n)
        Shares of the n conditions on each side.
    """

    def __init__(self, sizes: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
        tables, turned = [], 0.0
        for side, share in zip(sizes.tolist(), shares, strict=True):
            for size in side:
                # A part goes on where the one before it stopped, so that the whole batch is even too.
                tables.append(rotating_counts(size, share, turned))
                turned += (size - np.floor(size * share + 1e-9).sum()) / max(1, np.count_nonzero(share))
        self._counts = np.stack(tables, axis=1).reshape(PERIOD, *sizes.shape, -1)
        self._used = np.concatenate([np.zeros_like(self._counts[:1]), np.cumsum(self._counts, axis=0)])
        self.largest = self._counts.max(axis=0)
        """Largest count of each part and condition, shape (sides, parts, n)."""

    def counts(self, number: int) -> NDArray[np.int64]:
        """Return the counts of batch ``number``, shape (sides, parts, n)."""
        return self._counts[number % PERIOD]

    def used(self, number: int) -> NDArray[np.int64]:
        """Sum of the counts of all batches before ``number``, shape (sides, parts, n)."""
        return self._used[PERIOD] * (number // PERIOD) + self._used[number % PERIOD]
