"""Near neighbours of anchors as hard negatives in a batch.

Every axis stays as it is: an anchor is only replaced by another one from the same pool.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from viscy_data.sampler.draw import Ints, Pools
from viscy_data.sampler.permutation import mix

__all__ = ["NearNeighbors"]


class NearNeighbors:
    """Replace part of each batch by near neighbours of other anchors in it.

    Parameters
    ----------
    table : array_like of int, shape (N, k)
        Positions of the near neighbours of each anchor, nearest first, -1 for none.
    order : ndarray of int, shape (N,)
        Positions of the anchors in sorted order.
    wanted : int
        Anchors per batch to replace.

    Raises
    ------
    ValueError
        If the table does not fit the anchors.
    """

    def __init__(self, table: ArrayLike, order: NDArray[np.integer], wanted: int) -> None:
        table, n_anchors = np.asarray(table), len(order)
        if table.ndim != 2 or len(table) != n_anchors or not np.issubdtype(table.dtype, np.integer):
            raise ValueError(
                f"neighbors must be integers of shape ({n_anchors}, k), found {table.dtype} of shape {table.shape}"
            )
        if table.size and (table.max() >= n_anchors or table.min() < -1):
            raise ValueError(f"neighbors must be positions below {n_anchors}, or -1 for none")
        self.wanted, self._table, self._order = wanted, table, order
        self._rank = np.empty_like(order)
        self._rank[order] = np.arange(n_anchors, dtype=order.dtype)

    def apply(self, places: Ints, request: Ints, pools: Pools, n_own: int, key: int) -> tuple[Ints, NDArray[np.bool_]]:
        """Put neighbours of randomly chosen anchors, the nearest first, into the place of others.

        Parameters
        ----------
        places, request : ndarray of int64, shape (B,)
            Sorted places of the batch, and the request that each belongs to.
        pools : Pools
            What the requests draw from.
        n_own : int
            Requests below it are of the batch's own experiment; only these take part.
        key : int
            Key of the batch.

        Returns
        -------
        tuple of (ndarray of int64, shape (B,), ndarray of bool, shape (B,))
            The new batch, and which anchors came in as neighbours.
        """
        slots = np.flatnonzero(request < n_own)
        slots = slots[np.argsort(mix(slots.astype(np.uint64) ^ np.uint64(key)))]
        n_chosen = max(1, min(self.wanted, len(slots) - self.wanted))
        chosen, others = slots[:n_chosen], slots[n_chosen:]
        near, pool = self._candidates(places, chosen, pools)
        # The n-th candidate of a pool takes the n-th of the other slots of that pool; one of another pool finds none.
        others = others[np.argsort(request[others], kind="stable")]
        target = np.searchsorted(request[others], pool) + _occurrence(pool)
        fits = np.flatnonzero(target < np.searchsorted(request[others], pool, side="right"))[: self.wanted]
        places, came = places.copy(), np.zeros(len(places), dtype=bool)
        places[others[target[fits]]] = near[fits]
        came[others[target[fits]]] = True
        return places, came

    def _candidates(self, places: Ints, chosen: Ints, pools: Pools) -> tuple[Ints, Ints]:
        """Distinct neighbours that are not in the batch yet, those nearest to their anchors first; and their pools."""
        found = self._table[self._order[places[chosen]]].T.ravel()
        near = self._rank[found[found >= 0]].astype(np.int64)
        near = near[np.sort(np.unique(near, return_index=True)[1])]
        near = near[~np.isin(near, places)]
        return near, pools.request_of(near)


def _occurrence(labels: Ints) -> Ints:
    """Count, for each label, the equal ones before it.

    >>> _occurrence(np.array([7, 3, 7, 7, 3])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    count = np.empty(len(labels), dtype=np.int64)
    count[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return count
