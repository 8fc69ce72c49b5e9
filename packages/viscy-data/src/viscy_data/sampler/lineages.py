"""At most so many anchors of one lineage in a batch, wherever the pools allow it.

Every axis stays as it is: an anchor is only replaced by another one from the same pool. Anchors beyond the limit are
drawn again; where chance does not find a place, a chain of exchanges does, or shows that there is none. Say that pool
one holds lineages A and B, pool two A only, each gives one anchor, and the limit is 1: when pool one has taken A, pool
two takes A from it, and pool one goes on to B. Such chains find a filling whenever there is one, and else the largest
(augmenting paths: Ford and Fulkerson, 1956).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viscy_data.sampler.draw import Ints, Pools
from viscy_data.sampler.permutation import hash_key, mix, uniform_below

__all__ = ["LineageLimit"]

_ATTEMPTS = 16
_ANCHORS_KEPT = 16_000_000  # in lists by lineage, 4 bytes each


@dataclass(frozen=True, eq=False)
class _LineageList:
    """The anchors of a pool, those of one lineage next to each other."""

    places: NDArray[np.integer]
    lineages: NDArray[np.integer]
    first: Ints

    @classmethod
    def of(cls, pools: Pools, request: int, lineage: NDArray[np.integer]) -> _LineageList:
        size = pools.sizes[request]
        places = pools.locate(np.full(size, request), np.arange(size))
        places = places[np.argsort(lineage[places], kind="stable")]
        places = places.astype(np.int32) if len(lineage) < 2**31 else places
        lineages, first = np.unique(lineage[places], return_index=True)
        return cls(places, lineages, np.append(first, size))

    def anchors(self, lineage: int) -> NDArray[np.integer]:
        at = np.searchsorted(self.lineages, lineage)
        return self.places[self.first[at] : self.first[at + 1]]

    def find(self, lineages: Ints) -> Ints:
        """Where in the list those of the given lineages are that it holds."""
        at = np.searchsorted(self.lineages, lineages)
        return at[self.lineages[np.minimum(at, len(self.lineages) - 1)] == lineages]


class LineageLimit:
    """Exchange anchors of a drawn batch until no lineage has more than ``limit``.

    Parameters
    ----------
    lineage : ndarray of int, shape (N,)
        Lineage of each sorted place.
    limit : int
        Most anchors of one lineage.
    """

    def __init__(self, lineage: NDArray[np.integer], limit: int) -> None:
        self.lineage, self.limit = lineage, limit
        self._lists: dict[tuple[int, int], tuple[Pools, _LineageList]] = {}

    def apply(self, places: Ints, request: Ints, pools: Pools, key: int) -> tuple[Ints, int]:
        """Exchange what is too much; the rest of the batch stays.

        Parameters
        ----------
        places, request : ndarray of int64, shape (B,)
            Sorted places of the batch, and the request that each belongs to.
        pools : Pools
            What the requests draw from.
        key : int
            Key of the batch.

        Returns
        -------
        tuple of (ndarray of int64, shape (B,), int)
            The new batch, and how many anchors are beyond the limit; as few as there can be.
        """
        ordered = np.sort(self.lineage[places])
        if (ordered[self.limit :] != ordered[: -self.limit]).all():
            return places, 0
        exchange = _Exchange(self, places, request, pools, key)
        return exchange.places, exchange.fill()

    def lineage_list(self, pools: Pools, request: int) -> _LineageList:
        """Return the anchors of a pool by lineage; lists that were used lately are kept."""
        # A list is kept with its pools, so that no other pools can have their id.
        found = self._lists.pop((id(pools), request), None)
        if found is None:
            found = pools, _LineageList.of(pools, request, self.lineage)
            n_kept = sum(len(kept.places) for _, kept in self._lists.values())
            while self._lists and n_kept + len(found[1].places) > _ANCHORS_KEPT:
                oldest = self._lists.pop(next(iter(self._lists)))
                n_kept -= len(oldest[1].places)
        self._lists[id(pools), request] = found
        return found[1]

    def __getstate__(self) -> dict:
        """Leave out what can be made again."""
        return {**self.__dict__, "_lists": {}}


class _Exchange:
    """One batch while it changes."""

    def __init__(self, owner: LineageLimit, places: Ints, request: Ints, pools: Pools, key: int) -> None:
        self.owner, self.pools, self.key = owner, pools, key
        self.places, self.request = places.copy(), request
        # Where a pool is smaller than what is asked of it anchors repeat, each about equally often.
        self.uses = -(-np.bincount(request, minlength=len(pools.sizes)) // np.maximum(pools.sizes, 1))
        self.open: list[int] = []
        self.filled = np.zeros(len(places), dtype=bool)
        self.used: Counter[int] = Counter()
        self.of_lineage: dict[int, list[int]] = {}
        for slot, lineage in enumerate(owner.lineage[places].tolist()):
            if len(self.of_lineage.get(lineage, ())) < owner.limit:
                self._put(slot, int(places[slot]), lineage)
            else:
                self.open.append(slot)

    def fill(self) -> int:
        """Fill the open slots; return how many go beyond the limit."""
        self._fill_by_chance()
        surplus, closed = [], set()
        for slot in self.open:
            request = int(self.request[slot])
            if request in closed or not self._fill_by_chain(slot, closed):
                surplus.append(slot)
        for slot in surplus:
            self._fill_anyhow(slot)
        return len(surplus)

    def _put(self, slot: int, place: int, lineage: int) -> None:
        self.places[slot], self.filled[slot] = place, True
        self.used[place] += 1
        self.of_lineage.setdefault(lineage, []).append(slot)

    def _fill_by_chance(self) -> None:
        """Draw a few anchors for each open slot, and take the first that fits."""
        slots = np.repeat(np.array(self.open), _ATTEMPTS)
        requests = self.request[slots]
        keys = np.uint64(self.key) ^ mix(np.arange(1, len(slots) + 1, dtype=np.uint64))
        drawn = self.pools.locate(requests, uniform_below(self.pools.sizes[requests], keys)).reshape(-1, _ATTEMPTS)
        still_open = []
        for slot, places, lineages in zip(self.open, drawn.tolist(), self.owner.lineage[drawn].tolist(), strict=True):
            uses = self.uses[self.request[slot]]
            for place, lineage in zip(places, lineages, strict=True):
                if self.used[place] < uses and len(self.of_lineage.get(lineage, ())) < self.owner.limit:
                    self._put(slot, place, lineage)
                    break
            else:
                still_open.append(slot)
        self.open = still_open

    def _fill_by_chain(self, slot: int, closed: set[int]) -> bool:
        """Find the shortest chain of exchanges that ends at a lineage with room, and carry it out."""
        start = int(self.request[slot])
        came_from: dict[int, tuple[int, int, int]] = {}
        queue = [start]
        for request in queue:
            free, full = self._lineages_with_anchors(request)
            if len(free):
                self._carry_out(slot, request, int(free[hash_key(self.key, slot) % len(free)]), came_from)
                return True
            for lineage in full.tolist():
                for holder in self.of_lineage[lineage]:
                    reached = int(self.request[holder])
                    if reached not in queue:
                        came_from[reached] = holder, lineage, request
                        queue.append(reached)
        closed.update(queue)  # nothing that can be reached from here has room, now or later
        return False

    def _lineages_with_anchors(self, request: int) -> tuple[Ints, Ints]:
        """Lineages of a pool that have unused anchors: those below the limit, and those at it."""
        table = self._list(request)
        unused = np.diff(table.first) * self.uses[request]
        own = self.places[self.filled & (self.request == request)]
        np.subtract.at(unused, table.find(self.owner.lineage[own]), 1)
        at_limit = [lineage for lineage, slots in self.of_lineage.items() if len(slots) >= self.owner.limit]
        full = table.find(np.array(at_limit, dtype=table.lineages.dtype))
        is_free = unused > 0
        is_free[full] = False
        return table.lineages[is_free], table.lineages[full[unused[full] > 0]]

    def _carry_out(self, slot: int, request: int, lineage: int, came_from: dict[int, tuple[int, int, int]]) -> None:
        """Walk back: each holder of a lineage goes on to the one found last, and leaves its own to who came from."""
        while request in came_from:
            holder, left, before = came_from[request]
            self.of_lineage[left].remove(holder)
            self.used[int(self.places[holder])] -= 1
            self._put(holder, self._unused(request, self._list(request).anchors(lineage)), lineage)
            request, lineage = before, left
        self._put(slot, self._unused(request, self._list(request).anchors(lineage)), lineage)

    def _fill_anyhow(self, slot: int) -> None:
        """Take any anchor of the pool; the one that was drawn if it is still unused."""
        request, place = int(self.request[slot]), int(self.places[slot])
        if self.used[place] >= self.uses[request]:
            place = self._unused(request, self._list(request).places)
        self._put(slot, place, int(self.owner.lineage[place]))

    def _list(self, request: int) -> _LineageList:
        return self.owner.lineage_list(self.pools, request)

    def _unused(self, request: int, anchors: NDArray[np.integer]) -> int:
        """Take the first unused anchor from a random one on."""
        begin = hash_key(self.key, request, len(self.used)) % len(anchors)
        for at in range(begin, begin + len(anchors)):
            place = int(anchors[at % len(anchors)])
            if self.used[place] < self.uses[request]:
                return place
        raise AssertionError("a lineage that was found to have an unused anchor has none")
