"""What one epoch needs to know: which experiment each batch belongs to, and the keys of the epoch's permutations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from viscy_data.sampler.permutation import hash_key, mix
from viscy_data.sampler.rounding import PERIOD

__all__ = ["BATCH_SCOPE", "Epoch"]

BATCH_SCOPE = 1 << 32
"""Scope of the keys of batch 0, beyond those of experiments."""


class Epoch:
    """The experiments of the batches of an epoch, in order.

    Parameters
    ----------
    seed, epoch : int
        At least 0; the arrangement is a function of these two.
    n_batches : int
        Batches of the epoch, over all ranks.
    shares : ndarray of float64, shape (E,)
        Share of the batches of each experiment. Every experiment gets its quota rounded down or up; which, is drawn,
        so that over many epochs even the smallest gets its share.
    """

    def __init__(self, seed: int, epoch: int, n_batches: int, shares: NDArray[np.float64]) -> None:
        self.key = hash_key(seed, epoch)
        self._salts = np.empty(0, dtype=np.uint64)
        self._experiments: NDArray[np.unsignedinteger] | None = None
        rng = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
        self._phases = rng.integers(PERIOD, size=len(shares)).tolist()
        if len(shares) > 1:
            edges = np.concatenate([[0.0], np.cumsum(shares)]) * n_batches
            edges[-1] = n_batches
            quotas = np.diff(np.floor(edges + rng.random()).astype(np.int64))
            experiments = np.repeat(np.arange(len(shares)), quotas)
            rng.shuffle(experiments)  # numpy's fast path is for machine integers
            self._experiments = experiments.astype(np.min_scalar_type(len(shares)))

    def place(self, number: int) -> tuple[int, int, int]:
        """Experiment of a batch, how many earlier batches belong to it too, and where its rotation began."""
        if self._experiments is None:
            return 0, number, self._phases[0]
        experiment = int(self._experiments[number])
        earlier = np.count_nonzero(self._experiments[:number] == experiment)
        return experiment, int(earlier), self._phases[experiment]

    def batch_key(self, number: int) -> int:
        """Key of one batch."""
        return hash_key(self.key, BATCH_SCOPE + number)

    def keys(self, scope: int, count: int) -> NDArray[np.uint64]:
        """Return ``count`` keys of one scope, such as an experiment or a batch."""
        if count > len(self._salts):
            self._salts = mix(np.arange(1, count + 1, dtype=np.uint64))
        return self._salts[:count] ^ np.uint64(hash_key(self.key, scope))
