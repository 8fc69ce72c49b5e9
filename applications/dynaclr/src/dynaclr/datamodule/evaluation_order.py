"""In which order anchors are validated: mixed once and for all.

In the order of the table a batch holds the neighbouring frames of a few cells, which leaves a contrastive loss without
true negatives. The order here is random, but the same in every epoch and on every rank.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from viscy_data.distributed import SequentialBatchSampler

__all__ = ["FixedOrderBatchSampler"]


class FixedOrderBatchSampler(SequentialBatchSampler):
    """Batches of one fixed random order of all items.

    Parameters
    ----------
    n, batch_size, num_replicas, rank
        As for :class:`~viscy_data.distributed.SequentialBatchSampler`; every rank gets the same number of batches.
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
