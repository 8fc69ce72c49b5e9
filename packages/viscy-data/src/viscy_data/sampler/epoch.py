"""What one epoch needs to know: which experiment each batch belongs to, and the keys of the epoch's permutations.

Six batches, two thirds of them of experiment 0: a ring of six fields, of which it owns four. Each batch lies five
fields on from the one before: a step near the golden section of the ring, but without a common factor with its length.
This gives the experiment of each batch, and how many batches of that experiment come before it:

>>> epoch = Epoch(seed=0, epoch=0, n_batches=6, shares=np.array([2 / 3, 1 / 3]))
>>> [epoch.place(number)[:2] for number in range(6)]
[(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3)]
"""

from __future__ import annotations

from bisect import bisect_right
from math import gcd

import numpy as np
from numpy.typing import NDArray

from viscy_data.sampler.permutation import hash_key, mix
from viscy_data.sampler.rounding import PERIOD

__all__ = ["BATCH_SCOPE", "Epoch", "floor_sum"]

BATCH_SCOPE = 1 << 32
"""Scope of the keys of batch 0, beyond those of experiments."""


_GOLDEN_SECTION = (5**0.5 - 1) / 2


class Epoch:
    """The experiments of the batches of an epoch, in order.

    The batches of each experiment lie evenly over the epoch: all are laid on a ring that is divided among the
    experiments, and successive ones are a golden section of the ring apart, so that any run of batches comes close to
    the shares. Nothing of the size of the epoch is kept.

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
        rng = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
        self._phases = rng.integers(PERIOD, size=len(shares)).tolist()
        edges = np.concatenate([[0.0], np.cumsum(shares)]) * n_batches
        edges[-1] = n_batches
        self._bounds = np.floor(edges + rng.random()).astype(np.int64).tolist()
        self._shift = int(rng.integers(n_batches))
        self._stride = round(n_batches * _GOLDEN_SECTION)
        while gcd(self._stride, n_batches) > 1:
            self._stride += 1

    def place(self, number: int) -> tuple[int, int, int]:
        """Experiment of a batch, how many earlier batches belong to it too, and where its rotation began."""
        n_batches = self._bounds[-1]
        experiment = bisect_right(self._bounds, (number * self._stride + self._shift) % n_batches) - 1
        low, high = (
            floor_sum(number, n_batches, self._stride, self._shift + n_batches - bound)
            for bound in self._bounds[experiment : experiment + 2]
        )
        return experiment, low - high, self._phases[experiment]

    def batch_key(self, number: int) -> int:
        """Key of one batch."""
        return hash_key(self.key, BATCH_SCOPE + number)

    def keys(self, scope: int, count: int) -> NDArray[np.uint64]:
        """Return ``count`` keys of one scope, such as an experiment or a batch."""
        if count > len(self._salts):
            self._salts = mix(np.arange(1, count + 1, dtype=np.uint64))
        return self._salts[:count] ^ np.uint64(hash_key(self.key, scope))


def floor_sum(n: int, modulus: int, slope: int, offset: int) -> int:
    """Sum of ``(slope * i + offset) // modulus`` over i in 0 ... n - 1, in logarithmic time.

    As Euclid's algorithm: what is left of the slope after whole steps counts lattice points under a line, and
    exchanging the axes makes it steep again (Graham, Knuth and Patashnik, Concrete Mathematics, 3.5).

    >>> floor_sum(4, 10, 7, 0), 0 // 10 + 7 // 10 + 14 // 10 + 21 // 10
    (3, 3)
    """
    total = 0
    while True:
        total += n * (n - 1) // 2 * (slope // modulus) + n * (offset // modulus)
        slope, offset = slope % modulus, offset % modulus
        last = slope * n + offset
        if last < modulus:
            return total
        n, offset, modulus, slope = last // modulus, last % modulus, slope, modulus
