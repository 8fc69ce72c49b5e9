"""Optional changes to a drawn batch: few anchors per lineage, and near neighbours as hard negatives.

Both keep every axis as it is: an anchor is only replaced by another one from the same pool.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from viscy_data.sampler.draw import Ints, Pools
from viscy_data.sampler.permutation import mix, uniform_below

__all__ = ["include_neighbors", "limit_lineages"]

_ATTEMPTS = 16


def limit_lineages(
    places: Ints, request: Ints, pools: Pools, lineage: NDArray[np.integer], limit: int, key: int
) -> tuple[Ints, int]:
    """Draw anchors again while their lineage has more than ``limit`` in the batch.

    Parameters
    ----------
    places, request : ndarray of int64, shape (B,)
        The batch.
    lineage : ndarray of int, shape (N,)
        Lineage of each sorted place.
    key : int
        Key of the batch.

    Returns
    -------
    tuple of (ndarray of int64, shape (B,), int)
        The new batch, and how many anchors are still too many after 16 attempts.
    """
    places = places.copy()
    slots = np.arange(len(places), dtype=np.uint64)
    surplus = _surplus(places, lineage, limit, np.zeros(len(places), dtype=bool))
    for attempt in range(_ATTEMPTS):
        again = np.flatnonzero(surplus)
        if again.size == 0:
            break
        keys = np.uint64(key) ^ mix(slots[again] + np.uint64((attempt + 1) << 32))
        old = places[again]
        places[again] = pools.locate(request[again], uniform_below(pools.sizes[request[again]], keys))
        surplus = _surplus(places, lineage, limit, surplus)
        places[again] = np.where(surplus[again], old, places[again])
    _, counts = np.unique(lineage[places], return_counts=True)
    return places, int(np.maximum(counts - limit, 0).sum())


def _surplus(places: Ints, lineage: NDArray[np.integer], limit: int, last: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark anchors beyond the limit of their lineage, and repeats; those in ``last`` are the first to go."""
    surplus = np.zeros(len(places), dtype=bool)
    for values, allowed in ((lineage[places], limit), (places, 1)):
        order = np.lexsort((last, values))
        ordered = values[order]
        first = np.searchsorted(ordered, ordered, side="left")
        surplus[order] |= np.arange(len(places)) - first >= allowed
    return surplus & last if last.any() else surplus


def include_neighbors(
    places: Ints, request: Ints, candidates: Ints, candidate_request: Ints, wanted: int, seed_slots: Ints
) -> tuple[Ints, NDArray[np.bool_]]:
    """Replace part of a batch by near neighbours of some of its anchors.

    Parameters
    ----------
    places, request : ndarray of int64, shape (B,)
        The batch.
    candidates : ndarray of int64, shape (n_seeds, k)
        Sorted places of the neighbours of each seed, the nearest first; -1 for none.
    candidate_request : ndarray of int64, shape (n_seeds, k)
        The request whose pool holds each candidate, -1 for none.
    wanted : int
        How many anchors to replace.
    seed_slots : ndarray of int64, shape (n_seeds,)
        Where in the batch the seeds are, in the order in which they are used.

    Returns
    -------
    tuple of (ndarray of int64, shape (B,), ndarray of bool, shape (B,))
        The new batch, and which anchors came in as neighbours.
    """
    places = places.copy()
    here = set(places.tolist())
    free = {r: np.flatnonzero(request == r).tolist() for r in np.unique(request).tolist()}
    neighbor = np.zeros(len(places), dtype=bool)
    seeds: set[int] = set()
    for row, slot in enumerate(seed_slots.tolist()):
        if wanted == 0:
            break
        if neighbor[slot]:
            continue
        seeds.add(slot)
        for place, pool in zip(candidates[row].tolist(), candidate_request[row].tolist(), strict=True):
            slots = free.get(pool, [])
            while slots and slots[-1] in seeds:
                slots.pop()
            if wanted == 0 or place < 0 or not slots or place in here:
                continue
            target = slots.pop()
            here.add(place)  # the one that leaves stays on the list: it must not come back
            places[target], neighbor[target] = place, True
            wanted -= 1
    return places, neighbor
