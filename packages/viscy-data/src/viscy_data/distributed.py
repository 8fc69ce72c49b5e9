"""Who am I among the ranks, and which items are mine.

The samplers here are :class:`torch.utils.data.DistributedSampler` by type, because that is how Lightning recognises
one that already divides the work among the ranks and leaves it in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler

__all__ = ["FixedOrderBatchSampler", "SequentialBatchSampler", "ShardedDistributedSampler", "World"]


@dataclass(frozen=True)
class World:
    """Number of processes that train together, and which of them this one is.

    Parameters
    ----------
    size : int, default 1
        Number of ranks, at least 1.
    rank : int, default 0
        This one, ``0 <= rank < size``.

    Raises
    ------
    ValueError
        If the two do not fit together.
    """

    size: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"num_replicas must be at least 1, found {self.size}.")
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank must lie between 0 and num_replicas - 1 = {self.size - 1}, found {self.rank}.")

    @classmethod
    def detect(cls) -> World:
        """Ask ``torch.distributed``; a lone process when it is not initialised."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_world_size(), torch.distributed.get_rank())
        return cls()


class ShardedDistributedSampler(DistributedSampler):
    """Give every rank one contiguous shard of the items, shuffled within itself.

    Items that are neighbours on disk stay on one rank, which suits caches. Without ``shuffle`` the order is that of
    the parent. When ``drop_last`` leaves items out, the shards move on by that many items each epoch, so that none is
    left out more often than another.

    Parameters
    ----------
    dataset : Dataset
        Anything with a length.
    num_replicas, rank : int, optional
        The world; detected when omitted.
    shuffle : bool, default True
        New order in each epoch, a function of ``seed`` and the epoch.
    seed : int, default 0
        Equal on all ranks.
    drop_last : bool, default False
        Leave out the items beyond a multiple of the world size; otherwise the last shards overlap.
    """

    def __init__(
        self,
        dataset: Dataset,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        world = World.detect()
        size = world.size if num_replicas is None else num_replicas
        world = World(size, world.rank if rank is None else rank)
        super().__init__(dataset, world.size, world.rank, shuffle, seed, drop_last)

    def __iter__(self) -> Iterator[int]:
        """Yield the positions of this rank's items."""
        if not self.shuffle:
            return super().__iter__()
        n_items = len(self.dataset)
        if n_items == 0:
            return iter(())
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        # One draw per shard, in order: every rank runs through the same stream.
        orders = [torch.randperm(self.num_samples, generator=generator) for _ in range(self.num_replicas)]
        start = max(0, min(self.rank * self.num_samples, n_items - self.num_samples))
        left_out = max(0, n_items - self.num_samples * self.num_replicas)
        return iter(((orders[self.rank] + start + self.epoch * left_out) % n_items).tolist())


class SequentialBatchSampler(DistributedSampler):
    """Lists of consecutive positions in order, for validation and prediction.

    Parameters
    ----------
    n : int
        Number of items.
    batch_size : int
        Items per list; the last one holds what is left.
    num_replicas : int or None, default 1
        Number of ranks; None asks ``torch.distributed``.
    rank : int or None, default 0
        This rank; None asks ``torch.distributed``.
    pad : bool, default True
        True: the batches are those of a lone process, dealt out in turn, and wrap around so that every rank gets the
        same number of them (no rank waits for another; training and validation). False: every rank gets one
        contiguous part, each item exactly once over all ranks, and the parts in the order of the ranks are the whole
        (prediction).
    start : int, default 0
        Leave out this many of this rank's first items: where an interrupted prediction goes on. Needs ``pad=False``.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> list(SequentialBatchSampler(5, 2))
    [[0, 1], [2, 3], [4]]
    >>> [list(SequentialBatchSampler(5, 2, 2, rank)) for rank in range(2)]
    [[[0, 1], [4]], [[2, 3], [0, 1]]]
    >>> [list(SequentialBatchSampler(5, 2, 2, rank, pad=False)) for rank in range(2)]
    [[[0, 1]], [[2, 3], [4]]]
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        num_replicas: int | None = 1,
        rank: int | None = 0,
        pad: bool = True,
        start: int = 0,
    ) -> None:
        detected = World.detect() if num_replicas is None or rank is None else World()
        world = World(detected.size if num_replicas is None else num_replicas, detected.rank if rank is None else rank)
        if n < 0 or batch_size < 1:
            raise ValueError(f"n must be at least 0 and batch_size at least 1, found {n} and {batch_size}.")
        if start < 0 or (start and pad):
            raise ValueError(f"start must be at least 0 and needs pad=False, found start={start}, pad={pad}.")
        # The parent's constructor wants a dataset; its type alone is what matters here.
        self.n, self.batch_size, self.pad, self.start = int(n), int(batch_size), bool(pad), int(start)
        self.num_replicas, self.rank = world.size, world.rank
        self.epoch, self.seed, self.shuffle, self.drop_last = 0, 0, False, False

    def _bounds(self) -> tuple[int, int]:
        """First item and end of this rank's part (``pad=False``)."""
        first, end = (self.n * rank // self.num_replicas for rank in (self.rank, self.rank + 1))
        return min(first + self.start, end), end

    def __len__(self) -> int:
        """Count this rank's batches."""
        if self.pad:
            return ceil(ceil(self.n / self.batch_size) / self.num_replicas)
        first, end = self._bounds()
        return ceil((end - first) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this rank's batches in order."""
        if self.pad:
            total = ceil(self.n / self.batch_size)
            firsts = [(self.rank + i * self.num_replicas) % total * self.batch_size for i in range(len(self))]
            end = self.n
        else:
            first, end = self._bounds()
            firsts = range(first, end, self.batch_size)
        for first in firsts:
            yield list(range(first, min(first + self.batch_size, end)))


class FixedOrderBatchSampler(SequentialBatchSampler):
    """Batches of one fixed random order of all items, the same in every epoch and on every rank.

    Parameters
    ----------
    n, batch_size, num_replicas, rank
        As for :class:`SequentialBatchSampler`; every rank gets the same number of batches.
    seed : int, default 0
        Determines the order.
    """

    def __init__(
        self, n: int, batch_size: int, num_replicas: int | None = 1, rank: int | None = 0, seed: int = 0
    ) -> None:
        super().__init__(n, batch_size, num_replicas, rank, pad=True)
        self._order = np.random.default_rng(seed).permutation(n)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this rank's batches."""
        for batch in super().__iter__():
            yield self._order[batch].tolist()
