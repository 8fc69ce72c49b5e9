"""Negatives of an anchor: cells of another lineage of the same experiment.

One sorted key per observation, ``experiment * n_lineages + lineage``, makes an experiment a slice and a lineage a slice
of it. A cell outside the lineage is then one uniform number and one comparison.

>>> lookup = NegativeLookup(lineage=[0, 0, 1, 2, 2], experiment=[0, 0, 0, 0, 1])
>>> lookup.draw([0, 1, 2], np.random.default_rng(0)).tolist()
[3, 2, 0]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from viscy_data.lookup import SortedRows, draw_places

__all__ = ["NegativeLookup"]


class NegativeLookup:
    """Draw cells of other lineages.

    Parameters
    ----------
    lineage, experiment : array of int, shape (N,)
        Lineage and experiment of each observation, numbers of at least 0.
    """

    def __init__(self, lineage: ArrayLike, experiment: ArrayLike) -> None:
        lineage, self._experiment = np.asarray(lineage), np.asarray(experiment)
        self._n_lineages = int(lineage.max(initial=-1)) + 1
        self._key = self._experiment.astype(np.int64) * self._n_lineages + lineage
        self._sorted = SortedRows(self._key)

    def draw(self, rows: ArrayLike, rng: np.random.Generator) -> np.ndarray:
        """Draw one negative per anchor, uniformly among the observations of its experiment and of other lineages.

        Parameters
        ----------
        rows : array of int, shape (B,)
            Observations that are the anchors.
        rng : numpy.random.Generator
            The only source of randomness; B uniform numbers are drawn from it.

        Returns
        -------
        ndarray of int64, shape (B,)

        Raises
        ------
        ValueError
            If the experiment of an anchor has no other lineage.
        """
        rows = np.asarray(rows, dtype=np.int64)
        key, experiment = self._key[rows], self._experiment[rows].astype(np.int64)
        first, end = self._sorted.between(experiment * self._n_lineages, (experiment + 1) * self._n_lineages)
        own = self._sorted.between(key, key + 1)
        n_others = (end - first) - (own[1] - own[0])
        if (n_others == 0).any():
            raise ValueError(
                f"row {rows[n_others == 0][0]} has no negative: its experiment has a single lineage. "
                "Leave return_negative off, or leave the experiment out"
            )
        return self._sorted.rows(draw_places(first, end, rng, without=own))
