"""Who am I among the ranks, and which items are mine.

The samplers here are :class:`torch.utils.data.DistributedSampler` by type, because that is how Lightning recognises
one that already divides the work among the ranks and leaves it in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, DistributedSampler

from viscy_data.checks import is_count
from viscy_data.errors import InputError

__all__ = [
    "EpochPositions",
    "FixedOrderBatchSampler",
    "ResumableSampler",
    "SequentialBatchSampler",
    "ShardedBatchSampler",
    "ShardedDistributedSampler",
    "ShuffledBatchSampler",
    "World",
    "check_place",
    "gather_from_ranks",
]

T = TypeVar("T")


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


def gather_from_ranks(value: T) -> list[T]:
    """Return what each rank hands over, in their order; all of them have to ask.

    >>> gather_from_ranks({"A/1/0": "broken"})  # a lone process
    [{'A/1/0': 'broken'}]
    """
    world = World.detect()
    if world.size == 1:
        return [value]
    found: list[T | None] = [None] * world.size
    torch.distributed.all_gather_object(found, value)
    return found


def check_place(place: object, where: str) -> None:
    """Refuse what is no place in an epoch, see :meth:`viscy_data.loaders.BatchLoader.state_dict`.

    Parameters
    ----------
    place : object
        A mapping of ``epoch`` and ``batches``, and but for those of the first version ``done`` and ``ranks``.
    where : str
        For messages: whose place it is.

    Raises
    ------
    InputError
        If it is something else, or its numbers are no counts.
    """
    if not isinstance(place, Mapping):
        raise InputError(where, field="place in the epoch", found=repr(place), expected="entries by name")
    least = {"epoch": 0, "batches": 0} | ({"done": 0, "ranks": 1} if "done" in place else {})
    for name, value in least.items():
        if not is_count(place.get(name), value):
            found, expected = repr(place.get(name)), f"a whole number of at least {value}"
            raise InputError(where, field=f"place in the epoch, {name}", found=found, expected=expected)


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


class EpochPositions(list[int]):
    """The positions of a batch, and the epoch that they were drawn for.

    A dataset whose items are random makes them a function of both, so that an item is another one in each epoch
    whatever its batch. Survives the way to a worker process.

    Parameters
    ----------
    positions : iterable of int
    epoch : int, default 0
    """

    def __init__(self, positions: Iterable[int] = (), epoch: int = 0) -> None:
        super().__init__(positions)
        self.epoch = epoch


class ResumableSampler(DistributedSampler):
    """Batches of an epoch that are dealt out to the ranks in turn, from any of them on.

    The epoch is one sequence of batches over all ranks: batch ``number`` belongs to rank ``number % num_replicas``, and
    the last round wraps around to the first batches, so that all ranks have the same number. A subclass has
    ``num_replicas`` and ``rank``, and says :attr:`n_batches` and :meth:`batch`.
    """

    elastic: ClassVar[bool] = True
    """Whether the sequence is the same for any number of ranks."""
    epoch: int = 0
    _start: tuple[int, int] = (0, 0)

    @property
    def n_batches(self) -> int:
        """Batches of an epoch over all ranks."""
        raise NotImplementedError(f"{type(self).__name__} does not say how many batches there are")

    def batch(self, number: int, epoch: int | None = None) -> NDArray[np.int64]:
        """Return the positions of one batch of the sequence over all ranks, of the present epoch by default."""
        raise NotImplementedError(f"{type(self).__name__} does not say what is in a batch")

    @property
    def start(self) -> int:
        """First batch of the present epoch over all ranks, for resuming; other epochs begin at 0. Settable."""
        epoch, start = self._start
        return start if epoch == self.epoch else 0

    @start.setter
    def start(self, start: int) -> None:
        if not 0 <= start <= self.n_batches:
            raise ValueError(f"start must lie between 0 and {self.n_batches}, found {start}.")
        self._start = (self.epoch, int(start))

    @property
    def start_batch(self) -> int:
        """The number that the first batch after :attr:`start` has on this rank: its epoch ends at ``len(self)``."""
        return len(self) - ceil((self.n_batches - self.start) / self.num_replicas)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; Lightning calls it at the start of each."""
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, found {epoch}.")
        self.epoch = int(epoch)

    def __len__(self) -> int:
        """Count this rank's batches in a whole epoch: the same on every rank."""
        return ceil(self.n_batches / self.num_replicas)

    def __iter__(self) -> Iterator[EpochPositions]:
        """Yield this rank's batches of the present epoch, from :attr:`start` on."""
        epoch, n_batches, start = self.epoch, self.n_batches, self.start
        world = World(self.num_replicas, self.rank)
        for number in range(start + world.rank, start + world.size * (len(self) - self.start_batch), world.size):
            yield self.positions(number % n_batches, epoch)

    def positions(self, number: int, epoch: int) -> EpochPositions:
        """Return :meth:`batch` as loaders hand it to datasets."""
        return EpochPositions(self.batch(number, epoch).tolist(), epoch)


class ShuffledBatchSampler(ResumableSampler):
    """Batches of a new random order of all items in each epoch.

    Parameters
    ----------
    n, batch_size : int
        Number of items, and items per batch. Fewer items than a batch make one smaller batch.
    num_replicas, rank : int, default 1, 0
        The world.
    seed : int, default 0
        With the epoch, determines the order.
    drop_last : bool, default True
        Leave out the items beyond a multiple of the batch size: others in each epoch. Otherwise the last batch holds
        them.

    Examples
    --------
    >>> batches = ShuffledBatchSampler(5, 2)
    >>> len(batches), sorted(sum(ShuffledBatchSampler(5, 2, drop_last=False), []))
    (2, [0, 1, 2, 3, 4])
    """

    def __init__(
        self, n: int, batch_size: int, num_replicas: int = 1, rank: int = 0, seed: int = 0, drop_last: bool = True
    ) -> None:
        world = World(num_replicas, rank)
        if n < 1 or batch_size < 1:
            raise ValueError(f"n and batch_size must be at least 1, found {n} and {batch_size}.")
        # The parent's constructor wants a dataset; its type alone is what matters here.
        self.n, self.batch_size, self.seed = int(n), int(batch_size), int(seed)
        self.num_replicas, self.rank, self.drop_last, self.shuffle = world.size, world.rank, bool(drop_last), True
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def n_batches(self) -> int:
        """Batches of an epoch over all ranks."""
        whole, rest = divmod(self.n, self.batch_size)
        return max(1, whole + (rest > 0 and not self.drop_last))

    def batch(self, number: int, epoch: int | None = None) -> NDArray[np.int64]:
        """Return the positions of one batch of the sequence over all ranks, of the present epoch by default."""
        epoch = self.epoch if epoch is None else epoch
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng((self.seed, epoch)).permutation(self.n))
        first = number * self.batch_size
        return self._order[1][first : first + self.batch_size]


class ShardedBatchSampler(ResumableSampler):
    """Batches of :class:`ShardedDistributedSampler`: each rank keeps to its contiguous shard of the items.

    The ranks' own sequences make one in turn, which is another one for another number of ranks: a run can go on with
    more or fewer of them at the end of an epoch only.

    Parameters
    ----------
    n, batch_size, num_replicas, rank, seed
        As for :class:`ShuffledBatchSampler`.
    drop_last : bool, default True
        Leave out the items of a shard beyond a multiple of the batch size: others in each epoch.

    Examples
    --------
    >>> [sorted(sum(ShardedBatchSampler(8, 2, 2, rank), [])) for rank in range(2)]
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    """

    elastic = False

    def __init__(
        self, n: int, batch_size: int, num_replicas: int = 1, rank: int = 0, seed: int = 0, drop_last: bool = True
    ) -> None:
        if n < 1 or batch_size < 1:
            raise ValueError(f"n and batch_size must be at least 1, found {n} and {batch_size}.")
        self._items = ShardedDistributedSampler(range(n), num_replicas, rank, seed=seed)
        self.batch_size, self.seed, self.shuffle, self.drop_last = int(batch_size), int(seed), True, bool(drop_last)
        self.num_replicas, self.rank = self._items.num_replicas, self._items.rank
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def n_batches(self) -> int:
        """Batches of an epoch over all ranks."""
        whole, rest = divmod(len(self._items), self.batch_size)
        return self.num_replicas * max(1, whole + (rest > 0 and not self.drop_last))

    def batch(self, number: int, epoch: int | None = None) -> NDArray[np.int64]:
        """Return the positions of one of this rank's batches, of the present epoch by default."""
        turn, rank = divmod(number, self.num_replicas)
        if rank != self.rank:
            raise IndexError(f"batch {number} is one of rank {rank}, and this is rank {self.rank}")
        epoch = self.epoch if epoch is None else epoch
        if self._order is None or self._order[0] != epoch:
            self._items.set_epoch(epoch)
            self._order = (epoch, np.fromiter(self._items, np.int64))
        first = turn * self.batch_size
        return self._order[1][first : first + self.batch_size]
