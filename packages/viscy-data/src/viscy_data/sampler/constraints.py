"""Near neighbours of anchors as hard negatives in a batch.

Every axis stays as it is: an anchor is only replaced by another one from the same pool.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from viscy_data.sampler.draw import Ints

__all__ = ["include_neighbors"]


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
