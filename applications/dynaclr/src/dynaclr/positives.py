"""Positives of an anchor: observations of its track, its descendants or its lineage, tau frames later.

One sorted key per observation, ``t * n_tracks + enter``, puts all observations of one frame that belong to one subtree
next to each other. The candidates of (anchor, tau) are then a slice between two binary searches, whatever the scope.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from dynaclr.lineage import LineageForest
from dynaclr.tau_sampling import sample_tau_batch
from viscy_data.blocks import row_blocks
from viscy_data.errors import InputError
from viscy_data.lookup import SortedRows, draw_places

__all__ = ["PositiveLookup", "PositiveScope"]

PositiveScope = Literal["descendants", "lineage", "track"]
"""Whose observations may be positives: the anchor's track and its descendants, every track of its root, its track."""


class PositiveLookup:
    """Find and draw the positives of anchors.

    Parameters
    ----------
    t : array of int, shape (N,)
        Frame of each observation, at least 0.
    track_index : array of int, shape (N,)
        Track of each observation, a number of the forest; no track has two observations in one frame.
    forest : LineageForest
        Relations of the tracks.
    scope : {"descendants", "lineage", "track"}, default "descendants"
        Which tracks hold the positives of an anchor.
    order : SortedRows, optional
        The observations by frame and place of their track in the forest, where they have been sorted before.

    Raises
    ------
    ValueError
        If the scope is unknown.
    """

    def __init__(
        self,
        t: ArrayLike,
        track_index: ArrayLike,
        forest: LineageForest,
        scope: PositiveScope = "descendants",
        order: SortedRows | None = None,
    ) -> None:
        if scope not in get_args(PositiveScope):
            scopes = ", ".join(get_args(PositiveScope))
            raise InputError("positive_scope", found=repr(scope), expected=f"positive_scope must be one of {scopes}")
        self._t = np.asarray(t)
        self._track = np.asarray(track_index)
        self._n_tracks = max(len(forest), 1)
        if scope == "lineage":
            self._first, self._last = forest.enter[forest.root], forest.leave[forest.root]
        else:
            self._first, self._last = forest.enter, forest.leave if scope == "descendants" else forest.enter + 1
        if order is None:
            order = SortedRows(self._own_keys(forest))
        self.order = order

    def _own_keys(self, forest: LineageForest) -> np.ndarray:
        """Return the key of each observation, in four bytes where all of them fit."""
        is_narrow = (int(self._t.max(initial=0)) + 1) * self._n_tracks <= 2**32
        keys = np.empty(len(self._t), np.uint32 if is_narrow else np.int64)
        for part in row_blocks(len(keys)):
            keys[part] = self._t[part].astype(np.int64) * self._n_tracks + forest.enter[self._track[part]]
        return keys

    def count(self, rows: ArrayLike, tau: ArrayLike) -> np.ndarray:
        """Count the candidates of each anchor at an offset.

        Parameters
        ----------
        rows : array of int, shape (B,)
            Observations that are the anchors.
        tau : int or array of int
            Offset in frames, broadcast against ``rows``; at 0 the anchor itself is counted among the candidates.

        Returns
        -------
        ndarray of int64
            Number of observations ``tau`` frames later within the scope.
        """
        begin, end = self.order.between(*self._keys(np.asarray(rows), np.asarray(tau)))
        return end - begin

    def has_positive(self, rows: ArrayLike, tau_min: ArrayLike, tau_max: ArrayLike) -> np.ndarray:
        """Tell which observations are valid anchors.

        Parameters
        ----------
        rows : array of int, shape (B,)
            Observations asked about.
        tau_min, tau_max : int or array of int, shape (B,)
            Admissible offsets in frames, both included. 0 is passed over, except in the range (0, 0), in which every
            observation is its own positive.

        Returns
        -------
        ndarray of bool, shape (B,)
        """
        rows = np.asarray(rows)
        low, high = _offsets(rows, tau_min, tau_max)
        valid = (high == 0) | self._follows(rows, low, high)
        # What is still open after that is asked again, offset by offset, in the order of the keys.
        waiting = np.flatnonzero(~valid)
        waiting = waiting[np.argsort(self._t[rows[waiting]], kind="stable")]
        tau = low[waiting]
        while len(waiting):
            found = self.order.any_between(*self._keys(rows[waiting], tau))
            valid[waiting[found]] = True
            tau = tau + 1
            again = ~found & (tau <= high[waiting])
            waiting, tau = waiting[again], tau[again]
        return valid

    def draw(
        self,
        rows: ArrayLike,
        tau_min: ArrayLike,
        tau_max: ArrayLike,
        rng: np.random.Generator,
        decay_rate: float = 2.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw one positive per anchor.

        The offset follows the truncated exponential restricted to offsets that have a candidate; among the candidates
        at that offset each is equally likely.

        Parameters
        ----------
        rows : array of int, shape (B,)
            Observations that are the anchors.
        tau_min, tau_max : int or array of int, shape (B,)
            Admissible offsets in frames, as in :meth:`has_positive`.
        rng : numpy.random.Generator
            The only source of randomness; 2 B uniform numbers are drawn from it.
        decay_rate : float, default 2.0
            Decay of the exponential law; 0 is uniform.

        Returns
        -------
        positives, tau : ndarray of int64, shape (B,)
            Rows of the positives, and their offsets in frames.

        Raises
        ------
        ValueError
            If an anchor has no candidate in its range.
        """
        rows = np.asarray(rows, dtype=np.int64)
        low, high = _offsets(rows, tau_min, tau_max)
        if not len(rows):
            return rows, rows.copy()
        grid = low[:, None] + np.arange((high - low).max() + 1)  # (B, K)
        begin, end = self.order.between(*self._keys(rows[:, None], grid))
        allowed = (end > begin) & (grid <= high[:, None])
        lost = np.flatnonzero(~allowed.any(axis=1))
        if len(lost):
            raise ValueError(
                f"{len(lost)} of {len(rows)} observations, the first in row {rows[lost[0]]}, have no positive at any "
                f"tau of {low[lost[0]]} to {high[lost[0]]} frames: the tau range asked for does not match the one that "
                "the index was built with"
            )
        tau = sample_tau_batch(low, high, rng, decay_rate, allowed)
        which = np.arange(len(rows)), tau - low
        place = draw_places(begin[which], end[which], rng)
        # At offset 0 the anchor is its own positive, whoever else is in the frame.
        return np.where(tau == 0, rows, self.order.rows(place)), tau

    def _keys(self, rows: np.ndarray, tau: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First key of the candidates and the key after their last, for broadcast rows and offsets."""
        track = self._track[rows]
        frame = (self._t[rows].astype(np.int64) + tau) * self._n_tracks
        return frame + self._first[track], frame + self._last[track]

    def _follows(self, rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Whether the row ``low`` further down is a positive: settles most anchors where rows are sorted by time."""
        below = np.minimum(rows + low, len(self._t) - 1)
        elapsed = self._t[below] - self._t[rows]
        return (self._track[below] == self._track[rows]) & (low <= elapsed) & (elapsed <= high)


def _offsets(rows: np.ndarray, tau_min: ArrayLike, tau_max: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Ranges per row; 0 is an offset only of the range (0, 0)."""
    low = np.broadcast_to(np.asarray(tau_min, dtype=np.int64), rows.shape)
    high = np.broadcast_to(np.asarray(tau_max, dtype=np.int64), rows.shape)
    wrong = np.flatnonzero((low < 0) | (low > high))
    if len(wrong):
        raise ValueError(f"tau ranges must satisfy 0 <= tau_min <= tau_max, found ({low[wrong[0]]}, {high[wrong[0]]})")
    return np.where(high == 0, 0, np.maximum(low, 1)), high
