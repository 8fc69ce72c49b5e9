"""Keyed pseudo-random permutations whose elements are computed one by one.

A shuffled list of ten million anchors takes a second to make; element k of a keyed permutation takes none of the
others. A Feistel network over a grid that just covers the domain gives a bijection for any size; the few cells of the
grid beyond the domain are walked through. On small grids a network prefers some pairs of elements: domains smaller than
4096 go through it twice, and those smaller than 64 are shuffled as a list. All functions are elementwise over arrays.

>>> permute(range(5), 5, 42)  # a shuffled list
array([4, 1, 2, 3, 0])
>>> permute([0, 1, 2], 10_000_000, 42)  # three elements of one
array([2002740, 1285525,  813675])
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["cyclic_element", "hash_key", "mix", "permute", "permute_runs", "uniform_below"]

_ROUNDS = 3
_LISTED = 64  # below it, every pair of elements is exactly equally likely
_ONCE = 4096  # from here on the pairs of one pass are close enough to equally likely
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_C1, _C2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S32, _S33 = (np.uint64(shift) for shift in (30, 27, 31, 32, 33))


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit integers (the finaliser of SplitMix64), elementwise; arrays of at least one dimension."""
    x = (x ^ (x >> _S30)) * _C1
    x = (x ^ (x >> _S27)) * _C2
    return x ^ (x >> _S31)


def hash_key(*numbers: int) -> int:
    """Combine integers, in order, into one 64-bit key."""
    mask = (1 << 64) - 1
    key = 0
    for number in numbers:
        key = (key ^ (number & mask)) + 0x9E3779B97F4A7C15 & mask
        key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 & mask
        key = (key ^ key >> 27) * 0x94D049BB133111EB & mask
        key ^= key >> 31
    return key


def uniform_below(size: NDArray[np.int64], key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Draw one integer below ``size`` for each key (sizes below 2**31)."""
    return ((mix(key) >> _S33).astype(np.int64) * size) >> 31


def permute(index: ArrayLike, size: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """Where a keyed permutation sends an index.

    Parameters
    ----------
    index : array_like of int, shape (n,)
        ``0 <= index < size``.
    size : array_like of int, shape (n,) or scalar
        Number of elements of the domain, below 2**31.
    key : array_like of uint64, shape (n,) or scalar
        Each key is another permutation.

    Returns
    -------
    ndarray of int64, shape (n,)
        Distinct values for distinct indices of one (size, key).

    Examples
    --------
    >>> sorted(permute(range(5), 5, 42).tolist())
    [0, 1, 2, 3, 4]
    """
    index = np.atleast_1d(np.asarray(index, dtype=np.int64))
    size = np.broadcast_to(np.asarray(size, dtype=np.int64), index.shape)
    key = np.broadcast_to(np.asarray(key, dtype=np.uint64), index.shape)
    smallest = size.min(initial=_ONCE)
    if smallest >= _ONCE:
        return _scatter(index, size, key)
    out = np.empty_like(index)
    large, small = np.flatnonzero(size >= _LISTED), np.flatnonzero(size < _LISTED)
    out[large] = _scatter(index[large], size[large], key[large])
    out[small] = _shuffle(index[small], size[small], key[small])
    again = large[size[large] < _ONCE]
    out[again] = _scatter(out[again], size[again], mix(key[again]))
    return out


def permute_runs(
    index: NDArray[np.int64], size: NDArray[np.int64], key: NDArray[np.uint64], length: int
) -> NDArray[np.int64]:
    """Where a keyed permutation of runs of neighbours sends an index of an endless sequence.

    Each cycle of ``size`` elements has each of them once, in the same order; so any ``size`` consecutive ones are
    distinct. Where the runs begin is a function of the key. The elements beyond whole runs come last.

    >>> permute_runs(np.arange(10), np.full(10, 10), np.full(10, 7, np.uint64), 3).tolist()
    [7, 8, 9, 4, 5, 6, 0, 1, 2, 3]

    Parameters
    ----------
    index, size : ndarray of int64, shape (n,)
        Position in the sequence, and size of the domain.
    key : ndarray of uint64, shape (n,)
        Each key is another permutation.
    length : int
        Of a run, at least 1.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    place = index % size
    n_runs = size // length
    run, offset = np.divmod(place, length)
    whole = np.flatnonzero(run < n_runs)
    run[whole] = permute(run[whole], n_runs[whole], key[whole])
    return (run * length + offset + uniform_below(size, mix(key + _GOLDEN))) % size


def _shuffle(index: NDArray[np.int64], size: NDArray[np.int64], key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Sort random numbers: one list for each run of elements of one (size, key)."""
    if not index.size:
        return index
    changes = np.append(True, (key[1:] != key[:-1]) | (size[1:] != size[:-1]))
    first, run = np.flatnonzero(changes), np.cumsum(changes) - 1
    place = np.arange(size.max())
    numbers = mix(key[first, None] + _GOLDEN * (place + 1).astype(np.uint64))
    numbers[place >= size[first, None]] = np.iinfo(np.uint64).max  # to the end of a list that is shorter
    return numbers.argsort(axis=1, kind="stable")[run, index]


def _scatter(index: NDArray[np.int64], size: NDArray[np.int64], key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Send elements once through the network."""
    rows = np.sqrt(size).astype(np.int64)
    columns = -(-size // rows)
    # None is negative: the bits are the same.
    x, size, rows, columns = (numbers.view(np.uint64) for numbers in (index, size, rows, columns))
    # On a small grid the network alone prefers some cells; a keyed rotation makes every image equally likely.
    x = (x + ((key * _C2) >> _S33)) % size
    out = _feistel(x, rows, columns, key)
    outside = np.flatnonzero(out >= size)
    while outside.size:
        out[outside] = _feistel(out[outside], rows[outside], columns[outside], key[outside])
        outside = outside[out[outside] >= size[outside]]
    return out.view(np.int64)


def _feistel(
    x: NDArray[np.uint64], rows: NDArray[np.uint64], columns: NDArray[np.uint64], key: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Permute the cells of a grid: each coordinate in turn moves by a hash of the other."""
    a, b = np.divmod(x, columns)
    size_a, size_b = rows, columns
    for _ in range(_ROUNDS):
        key = key + _GOLDEN
        h = (b + key) * _C1
        h ^= h >> _S32
        h *= _C2
        h >>= _S33
        h += a
        h %= size_a
        a, b, size_a, size_b = b, h, size_b, size_a
    # An odd number of rounds: the coordinates have changed places.
    b *= columns
    b += a
    return b


def cyclic_element(
    index: NDArray[np.int64], size: NDArray[np.int64], key: NDArray[np.uint64], reach: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Element ``index`` of an endless sequence that runs through the whole domain again and again.

    Any ``min(reach, size)`` consecutive elements are distinct, also across the seam of two cycles, and every cycle
    holds each element once. The domain is split at random into two halves, which come one after the other; from the
    second cycle on, each half has a new order. Where ``reach`` is more than half of the domain, all cycles share one
    order.

    Three cycles of six elements of which two are used together, so that no cycle may end as the next one begins: the
    halves {2, 4, 5} and {0, 1, 3} stay apart.

    >>> index, six = np.arange(18), np.full(18, 6)
    >>> cyclic_element(index, six, np.full(18, 9, np.uint64), np.full(18, 2)).reshape(3, 2, 3).tolist()
    [[[5, 4, 2], [0, 1, 3]], [[4, 2, 5], [1, 0, 3]], [[5, 4, 2], [1, 0, 3]]]

    Parameters
    ----------
    index, size, reach : ndarray of int64, shape (n,)
        Position in the sequence, size of the domain, and how many consecutive elements are used together.
    key : ndarray of uint64, shape (n,)
        Key of the sequence.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    if index.size == 0:
        return index
    cycle, place = np.divmod(index, size)
    half = size >> 1
    again = np.flatnonzero((cycle > 0) & (reach <= half))
    if again.size:
        turn, here, length = cycle[again], place[again], half[again]
        first = np.where(here < length, 0, length)
        length = np.where(first == 0, length, size[again] - length)
        turned = mix(key[again] + turn.astype(np.uint64) * _GOLDEN + (first > 0))
        place[again] = first + permute(here - first, length, turned)
    return permute(place, size, key)
