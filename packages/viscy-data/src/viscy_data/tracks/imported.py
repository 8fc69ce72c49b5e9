"""What a reader of another program's tracks gives: a table of the one schema, and what the format could not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from viscy_data.optional import require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ImportedTracks", "TracksSummary", "summarize_tracks"]


@dataclass(frozen=True)
class ImportedTracks:
    """Tracks of one FOV.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`viscy_data.read_tracks` gives it: pixels, frames from 0, ids, parents; -1 is none.
    notes : tuple of str
        What was left out or assumed, counted.
    """

    table: pd.DataFrame
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TracksSummary:
    """Counts of a table of tracks.

    Parameters
    ----------
    n_cells, n_tracks, n_divisions, n_gaps : int
        Rows; tracks; tracks with several daughters; frames that tracks skip.
    median_length : float
        Frames from the first to the last of a track, both included.
    later_share : float
        Share of the cells that have a later observation of their own track or of a daughter.
    """

    n_cells: int
    n_tracks: int
    n_divisions: int
    n_gaps: int
    median_length: float
    later_share: float


def summarize_tracks(table: pd.DataFrame) -> TracksSummary:
    """Count what is in a table of tracks."""
    pandas = require("pandas", extra="triplet")
    if not len(table):
        return TracksSummary(0, 0, 0, 0, 0.0, 0.0)
    times = table.groupby("track_id")["t"].agg(["min", "max", "size"])
    lengths = times["max"] - times["min"] + 1
    parents = table["parent_track_id"] if "parent_track_id" in table else pandas.Series(-1, index=table.index)
    per_track = parents.groupby(table["track_id"]).first()
    daughters = per_track[per_track >= 0].value_counts()
    last = table["t"].to_numpy() == times["max"].reindex(table["track_id"]).to_numpy()
    has_daughter = table["track_id"].isin(daughters.index).to_numpy()
    return TracksSummary(
        n_cells=len(table),
        n_tracks=len(times),
        n_divisions=int((daughters > 1).sum()),
        n_gaps=int((lengths - times["size"]).sum()),
        median_length=float(lengths.median()),
        later_share=float(np.mean(~last | has_daughter)),
    )
