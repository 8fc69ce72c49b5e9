"""Tracking tables: one CSV per FOV under ``<tracks>/<row>/<column>/<fov>/``.

A table has one row per observation (a cell in a frame): ``track_id, t, y, x`` and, when known, ``z``, ``id``,
``parent_track_id`` and ``parent_id``; -1 means none. What the many writers of such files make of this (whole numbers
as floats, empty cells for "no parent", semicolons, decimal commas) is brought to one form here, and what cannot be
right is refused.
"""

from __future__ import annotations

from viscy_data.tracks.formats import import_tracks
from viscy_data.tracks.geff import write_geff
from viscy_data.tracks.imported import ImportedTracks, summarize_tracks
from viscy_data.tracks.napari import from_napari, to_napari, write_napari
from viscy_data.tracks.outside import OutsideCount, count_outside, describe_outside
from viscy_data.tracks.reading import find_tracks, read_tracks
from viscy_data.tracks.writing import write_tracks

__all__ = [
    "ImportedTracks",
    "OutsideCount",
    "count_outside",
    "describe_outside",
    "find_tracks",
    "from_napari",
    "import_tracks",
    "read_tracks",
    "summarize_tracks",
    "to_napari",
    "write_geff",
    "write_napari",
    "write_tracks",
]
