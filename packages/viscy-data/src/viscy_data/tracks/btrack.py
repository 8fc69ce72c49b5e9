"""Tracks of btrack: its HDF5 file, or its table (CSV)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from viscy_data.errors import InputError, reading_file
from viscy_data.optional import require
from viscy_data.tracks.columns import check_unique
from viscy_data.tracks.dialect import read_text_table
from viscy_data.tracks.imported import ImportedTracks
from viscy_data.tracks.reading import tracks_of_text

__all__ = ["BTRACK", "read_btrack_csv", "read_btrack_hdf5"]

BTRACK = ("ID", "t", "x", "y")
"""Columns by which a table of btrack is recognised."""

_NAMES = {"ID": "track_id", "parent": "parent_track_id"}
_COMPARISONS = {">": np.greater, "<": np.less, ">=": np.greater_equal, "<=": np.less_equal, "==": np.equal}


def read_btrack_csv(path: Path) -> ImportedTracks:
    """Read the table that btrack exports; cells that it interpolated are kept and counted."""
    text = read_text_table(path, required=BTRACK)
    notes: list[str] = []
    table = tracks_of_text(str(path), text.renamed(_NAMES), notes)
    if "dummy" in table:
        notes += _interpolated(int((table["dummy"].astype(str).str.lower().isin(["true", "1"])).sum()))
    return ImportedTracks(table, tuple(notes))


def read_btrack_hdf5(path: Path) -> ImportedTracks:
    """Read the HDF5 file that btrack writes.

    Parameters
    ----------
    path : Path
        Needs h5py, which comes with anndata.

    Returns
    -------
    ImportedTracks
        Positions in pixels, with properties of the objects as columns. Interpolated cells are kept, counted, and true
        in the column ``dummy``; objects that belong to no track are left out and counted.

    Raises
    ------
    InputError
        If it is no such file, has tracks of several types of objects, or a part is missing.
    """
    h5py = require("h5py", extra="anndata", package="viscy-utils")
    where = str(path)
    with reading_file(path, "an HDF5 file of btrack"), h5py.File(path, "r") as file:
        kinds = list(file["tracks"]) if "tracks" in file else []
        if len(kinds) != 1:
            found = f"tracks of {', '.join(kinds)}" if kinds else f"groups {', '.join(file) or 'none'}, no tracks"
            raise InputError(where, field="tracks", found=found, expected="tracks of one type of objects")
        objects, tracks = file.get(f"objects/{kinds[0]}"), file[f"tracks/{kinds[0]}"]
        parts = {"coords": objects, "tracks": tracks, "map": tracks, "LBEPR": tracks}
        if missing := [name for name, group in parts.items() if group is None or name not in group]:
            raise InputError(where, field=kinds[0], found=f"no {', '.join(missing)}", expected="a file of btrack")
        # A list: h5py holds its lock while items are gone through, beyond an error, and other threads wait for ever.
        items = list((objects.get("properties") or {}).items())
        properties = {name: own[:] for name, own in items if own.ndim == 1}
        dummies = tracks["dummies"][:, :4] if "dummies" in tracks else np.zeros((0, 4))
        lbep, spans, rows = (tracks[name][:].astype(np.int64) for name in ("LBEPR", "map", "tracks"))
        chosen = _chosen(where, tracks.attrs.get("f_expr"), properties, len(objects["coords"]))
        coords = objects["coords"][:, :4][chosen]
    return _assembled(
        where, coords, dummies, {name: own[chosen] for name, own in properties.items()}, lbep, spans, rows
    )


def _assembled(
    where: str,
    coords: np.ndarray,
    dummies: np.ndarray,
    properties: Mapping[str, np.ndarray],
    lbep: np.ndarray,
    spans: np.ndarray,
    rows: np.ndarray,
) -> ImportedTracks:
    """Make the table of objects (t, x, y, z), interpolated objects, tracks L B E P and the objects of each track."""
    size = spans[:, 1] - spans[:, 0]
    own = np.repeat(spans[:, 0] - np.cumsum(size) + size, size) + np.arange(size.sum())
    if len(own) and (own.max() >= len(rows) or rows.max() >= len(coords) or -rows.min() > len(dummies)):
        raise InputError(where, found="tracks of objects that are not there", expected="a file of btrack")
    rows = rows[own]
    # A negative number k is interpolated object -k - 1, hence the k-th from the end of the reversed ones.
    places = np.concatenate([coords, dummies[::-1]])[rows]
    track, parent = np.repeat(lbep[:, 0], size), np.repeat(np.where(lbep[:, 3] == lbep[:, 0], -1, lbep[:, 3]), size)
    parent[parent == 0] = -1
    columns: dict[str, Any] = {"track_id": track, "t": places[:, 0].astype(np.int64)}
    columns |= {name: places[:, place].astype(np.float32) for name, place in (("z", 3), ("y", 2), ("x", 1))}
    columns |= {"parent_track_id": parent, "dummy": rows < 0}
    columns |= {
        name: np.where(rows < 0, np.nan, np.append(values.astype(np.float64), np.full(len(dummies), np.nan))[rows])
        for name, values in properties.items()
        if name not in columns
    }
    table = require("pandas", extra="triplet").DataFrame(columns)
    check_unique(where, track, columns["t"])
    n_untracked = len(coords) - len(np.unique(rows[rows >= 0]))
    notes = [f"{n_untracked} objects belong to no track and are left out"] if n_untracked else []
    notes += _interpolated(int((rows < 0).sum()))
    return ImportedTracks(table if table["z"].any() else table.drop(columns="z"), tuple(notes))


def _chosen(where: str, expression: str | None, properties: Mapping[str, np.ndarray], n_objects: int) -> np.ndarray:
    """Return the objects that were tracked; btrack counts them after its filter, such as ``area>100``."""
    if not expression:
        return np.arange(n_objects)
    match = re.fullmatch(r"(\w+)(>=|<=|==|>|<)(\d+(?:\.\d+)?)", expression.replace(" ", ""))
    if match is None or match[1] not in properties:
        found = f"objects filtered by {expression!r}"
        raise InputError(where, field="f_expr", found=found, expected=f"one of {', '.join(properties)}, > and a number")
    return np.flatnonzero(_COMPARISONS[match[2]](properties[match[1]], float(match[3])))


def _interpolated(n_dummies: int) -> list[str]:
    return [f"{n_dummies} cells were interpolated by btrack (dummy), and are kept"] if n_dummies else []
