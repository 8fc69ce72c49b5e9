"""Positives and negatives by track and time, for whole batches at once."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from viscy_data.lookup import SortedRows, draw_places

__all__ = ["TrackPairs"]

Rows = NDArray[np.int64]


class _Candidates(NamedTuple):
    """Slices of the sorted rows: the candidates of each row, and its own track's rows in the middle of them."""

    first: Rows
    end: Rows
    own: tuple[Rows, Rows]

    @property
    def count(self) -> Rows:
        return (self.end - self.first) - (self.own[1] - self.own[0])


class TrackPairs:
    """Find the same cell at a later time, and other cells.

    Parameters
    ----------
    track : ndarray of int, shape (N,)
        Number of each observation's track, unique over all FOVs, from 0.
    t : ndarray of int, shape (N,)
        Frame of each observation, from 0.
    interval : int or "any"
        Frames from anchor to positive and negative; with "any" the positive is the anchor itself and a negative comes
        from any frame.
    """

    def __init__(self, track: np.ndarray, t: np.ndarray, interval: int | Literal["any"]) -> None:
        self._track, self._t = np.asarray(track, np.int64), np.asarray(t, np.int64)
        self.interval = interval
        self._n_tracks = int(self._track.max(initial=-1)) + 1
        frame = 0 if interval == "any" else self._t * self._n_tracks
        self._sorted = SortedRows(frame + self._track)

    def positives(self, rows: Rows) -> Rows:
        """Return the row of the same track ``interval`` frames later, -1 where there is none, shape (B,)."""
        if self.interval == "any":
            return rows
        first, end = self._candidates(rows).own
        exists = end > first
        return np.where(exists, self._sorted.rows(np.where(exists, first, 0)), -1)

    def count_negatives(self, rows: Rows) -> Rows:
        """Count the observations of other tracks to choose from, shape (B,)."""
        return self._candidates(rows).count

    def draw_negatives(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """Draw one observation of another track per row, uniformly, shape (B,).

        Raises
        ------
        ValueError
            If a row has none.
        """
        found = self._candidates(rows)
        if (found.count < 1).any():
            raise ValueError(f"row {rows[found.count.argmin()]} has no observation of another track to be its negative")
        return self._sorted.rows(draw_places(found.first, found.end, rng, without=found.own))

    def _candidates(self, rows: Rows) -> _Candidates:
        track = self._track[rows]
        if self.interval == "any":
            frame, first, end = 0, np.zeros_like(rows), np.full_like(rows, len(self._sorted))
        else:
            frame = (self._t[rows] + self.interval) * self._n_tracks
            first, end = self._sorted.between(frame, frame + self._n_tracks)
        return _Candidates(first, end, self._sorted.between(frame + track, frame + track + 1))
