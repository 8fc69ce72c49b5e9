"""Rows of a table by key, for whole batches at once: sort once, then a range of keys is a slice.

Observations of one frame, of one subtree, or of one experiment get neighbouring keys; the candidates of an anchor are
then what lies between two binary searches, and one of them is one random number.

>>> frames = SortedRows([3, 1, 3, 0])  # the frame of each of four observations
>>> first, end = frames.between([3], [4])
>>> frames.rows(np.arange(first[0], end[0])).tolist()
[0, 2]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["SortedRows", "draw_places"]

Places = NDArray[np.int64]


class SortedRows:
    """Rows in the order of their keys; a *place* is a position in that order.

    Parameters
    ----------
    keys : array_like of int, shape (N,)
        Key of each row. Rows of one key keep their order.
    """

    def __init__(self, keys: ArrayLike) -> None:
        keys = np.asarray(keys, np.int64)
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._rows = order.astype(np.int32 if len(order) < 2**31 else np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def between(self, first: ArrayLike, end: ArrayLike) -> tuple[Places, Places]:
        """Find the slices of the keys from ``first`` up to and without ``end``, elementwise.

        Returns
        -------
        begin, stop : ndarray of int64
            First place of each slice and the place after its last; equal where there is no such key.
        """
        return np.searchsorted(self._keys, first), np.searchsorted(self._keys, end)

    def any_between(self, first: ArrayLike, end: ArrayLike) -> NDArray[np.bool_]:
        """Tell whether there is a key from ``first`` up to and without ``end``: half the work of :meth:`between`."""
        if not len(self):
            return np.zeros(np.broadcast_shapes(np.shape(first), np.shape(end)), bool)
        begin = np.searchsorted(self._keys, first)
        return (begin < len(self)) & (self._keys[np.minimum(begin, len(self) - 1)] < end)

    def rows(self, places: ArrayLike) -> NDArray[np.int64]:
        """Return the rows at places."""
        return self._rows[places].astype(np.int64)


def draw_places(
    begin: Places, stop: Places, rng: np.random.Generator, without: tuple[Places, Places] | None = None
) -> Places:
    """Draw one place of each slice, each equally likely.

    Parameters
    ----------
    begin, stop : ndarray of int64, shape (B,)
        The slices. Of an empty one ``begin`` is returned.
    rng : numpy.random.Generator
        The only source of randomness; B uniform numbers are drawn from it.
    without : tuple of ndarray of int64, shape (B,), optional
        Begin and stop of a part of each slice that is stepped over.

    Returns
    -------
    ndarray of int64, shape (B,)

    Examples
    --------
    >>> begin, stop, own = np.array([10]), np.array([13]), (np.array([10]), np.array([12]))
    >>> draw_places(begin, stop, np.random.default_rng(0), without=own).tolist()
    [12]
    """
    skipped, resumed = (stop, stop) if without is None else without
    n_left = (stop - begin) - (resumed - skipped)
    # Below the number itself: 1 - 2**-53, the largest random number, is more than half a rounding step away from 1.
    place = begin + (rng.random(len(begin)) * n_left).astype(np.int64)
    return place + np.where(place >= skipped, resumed - skipped, 0)
