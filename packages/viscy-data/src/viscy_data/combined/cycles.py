"""An order of training that goes on: through its batches again, newly drawn, until an epoch is as long as asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from viscy_data.distributed import EpochPositions, ResumableSampler

__all__ = ["CycledBatchSampler"]


class CycledBatchSampler(ResumableSampler):
    """Repeat the batches of a sampler within an epoch.

    Epoch ``e`` of a sampler that is gone through ``k`` times are its epochs ``e * k`` to ``e * k + k - 1``: every batch
    is a function of epoch and number, whatever the number of ranks, and a resumed epoch goes on as an unbroken one.

    Parameters
    ----------
    batches : ResumableSampler
        Whose batches are repeated, over its ranks.
    n_batches : int
        Batches of an epoch over all ranks, at least as many as the sampler has.

    Examples
    --------
    >>> from viscy_data.distributed import ShuffledBatchSampler
    >>> drawn = list(CycledBatchSampler(ShuffledBatchSampler(4, 2), n_batches=5))
    >>> len(drawn), sorted(drawn[0] + drawn[1]), sorted(drawn[2] + drawn[3])
    (5, [0, 1, 2, 3], [0, 1, 2, 3])
    """

    def __init__(self, batches: ResumableSampler, n_batches: int) -> None:
        # The parent's constructor wants a dataset; its type alone is what matters here.
        self._batches, self._n_batches = batches, n_batches
        self._n_cycles = -(-n_batches // batches.n_batches)
        self.num_replicas, self.rank, self.elastic = batches.num_replicas, batches.rank, batches.elastic
        self.seed, self.shuffle, self.drop_last = batches.seed, batches.shuffle, batches.drop_last

    @property
    def n_batches(self) -> int:
        """Batches of an epoch over all ranks."""
        return self._n_batches

    def batch(self, number: int, epoch: int | None = None) -> NDArray[np.int64]:
        """Return the positions of one batch of the sequence over all ranks, of the present epoch by default."""
        return self._batches.batch(*self._place(number, self.epoch if epoch is None else epoch))

    def positions(self, number: int, epoch: int) -> EpochPositions:
        """Return :meth:`batch` as loaders hand it to datasets, with the epoch of the sampler that is repeated."""
        return self._batches.positions(*self._place(number, epoch))

    def _place(self, number: int, epoch: int) -> tuple[int, int]:
        """Return the number of a batch in which epoch of the sampler that is repeated."""
        cycle, own = divmod(number, self._batches.n_batches)
        return own, epoch * self._n_cycles + cycle
