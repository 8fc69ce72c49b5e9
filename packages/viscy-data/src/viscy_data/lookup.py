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

from viscy_data.blocks import row_blocks

__all__ = ["SortedRows", "draw_places", "row_dtype", "true_rows"]

Places = NDArray[np.int64]

_PER_STRETCH = 16  # keys in a stretch, in the mean: what one line of a cache holds


class SortedRows:
    """Rows in the order of their keys; a *place* is a position in that order.

    A row costs 8 bytes while keys stay below 2^32 (12 beyond), and a quarter of a byte for a table of where every
    stretch of keys begins. In it a key is one look-up and a few steps away, however many rows there are, where a binary
    search of all of them would miss the processor's cache at every step.

    Parameters
    ----------
    keys : array_like of int, shape (N,)
        Key of each row; of uint32 there is no copy. Rows of one key keep their order.
    """

    def __init__(self, keys: ArrayLike) -> None:
        is_narrow = isinstance(keys, np.ndarray) and keys.dtype == np.uint32
        keys = keys if is_narrow else np.asarray(keys, np.int64)
        lowest, highest = (int(keys.min()), int(keys.max())) if len(keys) else (0, -1)
        self._keys, self._rows = _sorted(keys, lowest, highest)
        width = _width(lowest, highest, len(keys))
        begins = np.arange(lowest + width, highest + 1, width, dtype=np.int64)
        inner = np.searchsorted(self._keys, _narrowed(begins, lowest, highest))
        self._begin = np.concatenate([[0], inner, [len(keys)]]).astype(self._rows.dtype)
        self._measure()

    def _measure(self) -> None:
        self._lowest, self._highest = (int(self._keys[end]) for end in (0, -1)) if len(self) else (0, -1)
        self._width = _width(self._lowest, self._highest, len(self))
        longest = int(np.diff(self._begin).max())
        self._steps = [1 << bit for bit in reversed(range(longest.bit_length()))]

    def arrays(self) -> dict[str, NDArray[np.integer]]:
        """Return what :meth:`from_arrays` makes it from, to be written to a file."""
        return {"keys": self._keys, "rows": self._rows, "begin": self._begin}

    @classmethod
    def from_arrays(
        cls, keys: NDArray[np.integer], rows: NDArray[np.integer], begin: NDArray[np.integer]
    ) -> SortedRows:
        """Take the arrays of :meth:`arrays` as they are, such as those of a mapped file, without a copy."""
        table = cls.__new__(cls)
        table._keys, table._rows, table._begin = keys, rows, begin
        table._measure()
        return table

    def __len__(self) -> int:
        return len(self._keys)

    def between(self, first: ArrayLike, end: ArrayLike) -> tuple[Places, Places]:
        """Find the slices of the keys from ``first`` up to and without ``end``, elementwise.

        Returns
        -------
        begin, stop : ndarray of int64
            First place of each slice and the place after its last; equal where there is no such key.
        """
        return self._place(first), self._place(end)

    def any_between(self, first: ArrayLike, end: ArrayLike) -> NDArray[np.bool_]:
        """Tell whether there is a key from ``first`` up to and without ``end``: half the work of :meth:`between`."""
        if not len(self):
            return np.zeros(np.broadcast_shapes(np.shape(first), np.shape(end)), bool)
        begin = self._place(first)
        return (begin < len(self)) & (self._keys[np.minimum(begin, len(self) - 1)] < end)

    def rows(self, places: ArrayLike) -> NDArray[np.int64]:
        """Return the rows at places."""
        return self._rows[places].astype(np.int64)

    def _place(self, keys: ArrayLike) -> Places:
        """Count the keys below each of some keys."""
        keys = np.asarray(keys, np.int64)
        stretch = (np.clip(keys, self._lowest, max(self._lowest, self._highest)) - self._lowest) // self._width
        place, stop = self._begin[stretch].astype(np.int64), self._begin[stretch + 1]
        for step in self._steps:
            further = place + step
            below = further <= stop
            below &= self._keys[np.minimum(further, len(self)) - 1] < keys
            place += below * step
        return place


def _width(lowest: int, highest: int, n_keys: int) -> int:
    """Return how many keys' values a stretch spans."""
    return max(1, -(-(highest - lowest + 1) * _PER_STRETCH // max(n_keys, 1)))


def _sorted(keys: NDArray[np.integer], lowest: int, highest: int) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Sort keys and, in the same order, the numbers of their rows."""
    rows = np.empty(len(keys), row_dtype(len(keys)))
    if _is_narrow(lowest, highest) and rows.dtype == np.int32:
        # Key and row in one number: sorted in place, where an order of rows would take as much again to be found.
        both = np.empty(len(keys), np.uint64)
        for part in row_blocks(len(keys)):
            both[part] = keys[part].astype(np.uint64) << np.uint64(32)
            both[part] |= np.arange(part.start, part.stop, dtype=np.uint64)
        both.sort()
        ordered = np.empty(len(keys), np.uint32)
        for part in row_blocks(len(keys)):
            ordered[part], rows[part] = both[part] >> np.uint64(32), both[part] & np.uint64(2**32 - 1)
        return ordered, rows
    order = np.argsort(keys, kind="stable")
    rows[:] = order
    return _narrowed(keys, lowest, highest)[order], rows


def _is_narrow(lowest: int, highest: int) -> bool:
    return lowest >= 0 and highest < 2**32


def _narrowed(keys: NDArray[np.integer], lowest: int, highest: int) -> NDArray[np.integer]:
    """Store keys in four bytes where all of them fit."""
    return keys.astype(np.uint32, copy=False) if _is_narrow(lowest, highest) else keys


def row_dtype(n_rows: int) -> type[np.integer]:
    """Return the narrowest type in which the positions of so many rows are kept: int32 below 2^31."""
    return np.int32 if n_rows < 2**31 else np.int64


def true_rows(mask: NDArray[np.bool_]) -> NDArray[np.integer]:
    """Return the positions that are True, ascending, of :func:`row_dtype`.

    >>> true_rows(np.array([True, False, True])).tolist()
    [0, 2]
    """
    rows, end = np.empty(np.count_nonzero(mask), row_dtype(len(mask))), 0
    for part in row_blocks(len(mask)):
        own = np.flatnonzero(mask[part])
        rows[end : end + len(own)] = own + part.start
        end += len(own)
    return rows


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
