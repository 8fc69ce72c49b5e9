"""Draw one batch: pools as slices of the sorted anchors, counts per pool, elements of keyed permutations.

A *request* is a number of anchors of one condition from one pool. There are two sides, the batch's own experiment and
all others (the leak); under temporal enrichment each side has two, inside and outside the focal window.

Sorted places 0 to 9, of which pool 0 is 2, 3, 4 and pool 1 is 0, 1 and 7, 8, 9. Two anchors of pool 0 and three of pool
1, from the beginning of their sequences:

>>> pools = Pools(np.array([[[2, 5]]]), np.array([[[0, 2], [7, 10]]]))
>>> pools.sizes.tolist(), pools.locate(np.array([1, 1, 1]), np.array([0, 2, 4])).tolist()
([3, 5], [0, 7, 9])
>>> counts, none, keys = np.array([2, 3]), np.array([0, 0]), np.array([5, 6], dtype=np.uint64)
>>> places, request, repeats = draw(pools, Requests(counts, none, counts, keys))
>>> places.tolist(), request.tolist(), repeats
([4, 2, 7, 8, 1], [0, 0, 1, 1, 1], 0)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from viscy_data.sampler.permutation import cyclic_element, permute, permute_runs

__all__ = ["Pools", "Requests", "draw", "other_slices", "settle", "whole_pools", "windowed_pools"]

Ints = NDArray[np.int64]


class Pools:
    """Slices of the sorted anchors, ordered by the request they belong to.

    Parameters
    ----------
    *blocks : ndarray of int64, shape (requests, slices per request, 2)
        Bounds of slices in sorted places; the blocks follow one another.

    Attributes
    ----------
    sizes : ndarray of int64, shape (R,)
        Anchors in the pool of each request.
    """

    def __init__(self, *blocks: Ints) -> None:
        slices = np.concatenate([block.reshape(-1, 2) for block in blocks])
        self._starts, self._stops = slices[:, 0], slices[:, 1]
        lengths = self._stops - self._starts
        self._ends = lengths.cumsum()
        widths = [block.shape[1] for block in blocks for _ in range(block.shape[0])]
        self._first = np.array([0, *accumulate(widths[:-1])])
        self.sizes = np.add.reduceat(lengths, self._first)
        self._offsets = self.sizes.cumsum() - self.sizes
        self._shift = self._stops - self._ends

    def locate(self, request: Ints, element: Ints) -> Ints:
        """Sorted places of elements of pools, both of shape (n,)."""
        flat = self._offsets[request]
        flat += element
        flat += self._shift[self._ends.searchsorted(flat, side="right")]
        return flat

    def request_of(self, places: Ints) -> Ints:
        """Find the request whose pool holds each place, -1 where none does."""
        inside = (places[..., None] >= self._starts) & (places[..., None] < self._stops)
        piece = inside.argmax(axis=-1)
        return np.where(inside.any(axis=-1), self._first.searchsorted(piece, side="right") - 1, -1)


@dataclass(frozen=True, eq=False)
class Requests:
    """How many anchors of which pool, and where in its endless sequence: arrays of shape (R,).

    ``reach`` is the most that any batch takes from the pool at once.
    """

    counts: Ints
    first: Ints
    reach: Ints
    keys: NDArray[np.uint64]


def other_slices(edges: Ints, experiment: int) -> Ints:
    """Slices of all experiments but one, shape (C, E, 2): that one's are empty."""
    others = edges.transpose(1, 0, 2).copy()
    others[:, experiment, 1] = others[:, experiment, 0]
    return others


def whole_pools(edges: Ints, experiment: int, leaky: bool) -> Pools:
    """Pools without regard to time: (own, leak) x conditions."""
    own = edges[experiment][:, None]
    return Pools(own, other_slices(edges, experiment)) if leaky else Pools(own)


def windowed_pools(edges: Ints, window: Ints, experiment: int, leaky: bool) -> Pools:
    """Pools by time: (own inside, own outside, leak inside, leak outside the window) x conditions."""
    outside = np.stack([edges[..., 0], window[..., 0], window[..., 1], edges[..., 1]], axis=-1)
    n_experiments, n_conditions = edges.shape[:2]
    blocks = [window[experiment][:, None], outside[experiment].reshape(n_conditions, 2, 2)]
    if leaky:
        left = outside.transpose(1, 0, 2).copy()
        left[:, experiment] = 0
        blocks += [other_slices(window, experiment), left.reshape(n_conditions, 2 * n_experiments, 2)]
    return Pools(*blocks)


def settle(asked: Ints, sizes: Ints) -> tuple[Ints, int]:
    """Fit what is asked inside and outside of the window to what there is.

    In this order: the same condition from the other part (balance before time), then repeats.

    Of conditions x and y six and two are asked for inside of the window, two and one outside. There are only five x
    inside, so the sixth comes from outside:

    >>> asked, sizes = np.array([[[6, 2], [2, 1]]]), np.array([[[5, 9], [9, 1]]])
    >>> take, moved = settle(asked, sizes)
    >>> take.tolist(), moved
    ([[[5, 2], [3, 1]]], 1)

    Parameters
    ----------
    asked, sizes : ndarray of int64, shape (sides, 2, C)
        Anchors asked for and available; the second axis is inside, outside.

    Returns
    -------
    tuple of (ndarray of int64, shape (sides, 2, C), int)
        What to take, and how many anchors changed part.
    """
    if (asked <= sizes).all():
        return asked, 0
    take = np.minimum(asked, sizes)
    short = asked.sum(axis=1) - take.sum(axis=1)
    for part in (1, 0):
        more = np.minimum(short, sizes[:, part] - take[:, part])
        take[:, part] += more
        short = short - more
    # Nothing is left: repeats of the part that has any, inside first.
    inside = np.where(sizes[:, 0] > 0, short, 0)
    take[:, 0] += inside
    take[:, 1] += short - inside
    return take, int(np.abs(take - asked).sum() // 2)


def draw(pools: Pools, requests: Requests, locality: int = 1) -> tuple[Ints, Ints, int]:
    """Draw the anchors of a batch; those of a request in runs of ``locality`` neighbours.

    Returns
    -------
    tuple of (ndarray of int64, shape (B,), ndarray of int64, shape (B,), int)
        Sorted places, the request that each belongs to, and how many are repeats because a pool is too small.
    """
    counts, sizes = requests.counts, pools.sizes
    request = np.arange(len(counts)).repeat(counts)
    index = np.arange(len(request))
    index += (requests.first - counts.cumsum() + counts)[request]
    if locality > 1:
        element = permute_runs(index, sizes[request], requests.keys[request], locality)
    elif (requests.first + counts <= sizes).all():
        element = permute(index, sizes[request], requests.keys[request])
    else:
        element = cyclic_element(index, sizes[request], requests.keys[request], requests.reach[request])
    return pools.locate(request, element), request, int(np.maximum(counts - sizes, 0).sum())
