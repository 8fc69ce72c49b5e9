"""Rows in blocks: what is derived of a hundred million rows needs room for a few of them at a time.

>>> [(part.start, part.stop) for part in row_blocks(5, 2)]
[(0, 2), (2, 4), (4, 5)]
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["row_blocks"]


def row_blocks(n_rows: int, size: int = 1 << 18) -> Iterator[slice]:
    """Yield the rows 0 to ``n_rows`` as slices of at most ``size``, small enough to stay in a processor's cache."""
    for first in range(0, n_rows, size):
        yield slice(first, min(first + size, n_rows))
