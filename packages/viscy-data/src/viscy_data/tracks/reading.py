"""Find and read tracking tables."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.errors import InputError, raise_all
from viscy_data.optional import require
from viscy_data.stores import canonical_fov_name
from viscy_data.tracks.columns import check_unique, convert_column, parents_or_none
from viscy_data.tracks.dialect import REQUIRED, TRACKMATE, TextTable, read_text_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["find_tracks", "read_tracks", "tracks_of_text"]

_MOST_COLUMNS, _MOST_CHARACTERS = 20, 40
_ENDING = re.compile(r"(\.ome)?\.zarr(?=/|$)")
_UNIT = re.compile(r"\(?(?!pixel)(microns?|[µμu]m|micromet\w+|mm|nm|cm|inch\w*)\)?", re.IGNORECASE)


def find_tracks(tracks_path: str | Path, fov_name: str) -> Path | None:
    """Find the tracking table of a FOV.

    Parameters
    ----------
    tracks_path : str or Path
        Root of the tracking results.
    fov_name : str
        ``row/column/fov``; of an image that is in no plate ``movie.zarr``, and its folder may lack the ending.

    Returns
    -------
    Path or None
        The only CSV in the FOV's folder, or the only TSV if there is no CSV; None when there is neither.

    Raises
    ------
    InputError
        If there are several, since nothing says which one is meant.
    """
    name = canonical_fov_name(fov_name)
    folder = Path(tracks_path) / name
    if not folder.is_dir():
        folder = Path(tracks_path) / _ENDING.sub("", name)
    # Names with a leading dot are left by file managers and unfinished writes.
    files = sorted(folder.glob("[!.]*"))
    tables = [path for path in files if path.suffix.lower() == ".csv"]
    tables = tables or [path for path in files if path.suffix.lower() == ".tsv"]
    if len(tables) > 1:
        raise InputError(
            str(folder),
            found=f"{len(tables)} CSV files: {', '.join(path.name for path in tables)}",
            expected="one tracking table per FOV",
            fix="keep one and move the others away",
        )
    return tables[0] if tables else None


def read_tracks(path: str | Path, *, notes: list[str] | None = None) -> pd.DataFrame:
    """Read and check a tracking table.

    Separators (comma, semicolon, tab), decimal commas, encodings (UTF-8, UTF-16, Windows-1252) and lines of names and
    units below the header are recognised; what can be read in two ways is refused.

    Parameters
    ----------
    path : str or Path
        CSV with a header. A table of a header alone is an FOV without cells.
    notes : list of str, optional
        Takes what had to be assumed or could not be used; without it there are warnings.

    Returns
    -------
    pandas.DataFrame
        In the order of the file: ``track_id``, ``t`` and, when present, ``id``, ``parent_track_id``, ``parent_id`` as
        int64 (-1 = none; a track that names itself as its parent has none), ``y``, ``x`` and, when present, ``z`` as
        float32 in pixels. A column ``parent`` of track ids is read as ``parent_track_id``, with a warning. Further
        columns are kept as they are, dates as text.

    Raises
    ------
    MissingInputError
        If there is no such file.
    InputError
        Naming file, column, line and value: empty file, missing or repeated column, values that are no numbers,
        fractions where whole numbers are due, ids that cannot be held exactly, coordinates that are not finite,
        negative time, a track that occurs twice in a frame.
    """
    text = read_text_table(Path(path))
    _refuse_physical_units(str(path), text)
    said: list[str] = []
    table = tracks_of_text(str(path), text, said)
    if notes is None:
        for note in said:
            warnings.warn(f"{path}: {note}", stacklevel=2)
    else:
        notes += said
    return table


def tracks_of_text(path: str, text: TextTable, notes: list[str]) -> pd.DataFrame:
    """Give the columns of a table their types and check them, see :func:`read_tracks`."""
    names = text.columns.column_names
    if missing := [name for name in REQUIRED if name not in names]:
        shown = [name if len(name) <= _MOST_CHARACTERS else f"{name[:_MOST_CHARACTERS]}..." for name in names]
        more = f" and {len(names) - _MOST_COLUMNS} more" if len(names) > _MOST_COLUMNS else ""
        found = f"columns {', '.join(shown[:_MOST_COLUMNS])}{more}"
        expected = "this column" if len(missing) == 1 else "these columns"
        fix = f"rename the columns that hold them, to {', '.join(missing)}; files of tracking programs: import-tracks"
        raise InputError(path, field=", ".join(missing), found=found, expected=expected, fix=fix)
    columns, errors = {}, []
    for name in names:
        try:
            columns[name] = convert_column(path, name, text)
        except InputError as err:
            errors.append(err)
    raise_all(errors)
    check_unique(path, columns["track_id"], columns["t"], text.line)
    if "parent_track_id" in columns:
        columns["parent_track_id"] = parents_or_none(path, text, columns["parent_track_id"], columns["track_id"])
    columns |= {name: np.maximum(columns[name], -1) for name in ("id", "parent_id") if name in columns}
    columns, assumed = _with_parents(columns)
    notes += text.notes + assumed
    return require("pandas", extra="triplet").DataFrame(columns)


def _refuse_physical_units(path: str, text: TextTable) -> None:
    """Refuse tables that say themselves that their coordinates are not in pixels."""
    names = set(text.columns.column_names)
    if set(TRACKMATE) <= names and not set(REQUIRED) & names:
        raise InputError(
            path,
            found=f"an export of TrackMate ({', '.join(TRACKMATE)}), whose positions are in units of the image",
            expected=f"columns {', '.join(REQUIRED)}, with y and x in pixels",
            fix="convert it: dynaclr import-tracks",
        )
    for number, line in enumerate(text.extra_lines):
        for name in ("y", "x"):
            if _UNIT.fullmatch(line[name]):
                raise InputError(
                    path,
                    field=name,
                    found=f"the unit {line[name]!r} in line {text.n_above - len(text.extra_lines) + number + 1}",
                    expected="coordinates in pixels",
                    fix="divide y and x by the size of a pixel and remove this line",
                )


def _with_parents(columns: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Take a column ``parent`` for ``parent_track_id`` if it can be nothing else, or say that there may be lineages."""
    if "parent_track_id" in columns:
        return columns, ()
    candidates = [name for name in columns if "parent" in name.lower() or "mother" in name.lower()]
    candidates = [name for name in candidates if name != "parent_id"]
    named = next((name for name in candidates if name.lower() == "parent"), None)
    if named is not None and (parent := _track_ids(columns, named)) is not None:
        renamed = {"parent_track_id" if name == named else name: values for name, values in columns.items()}
        return renamed | {"parent_track_id": parent}, (f"the column {named!r} is read as parent_track_id",)
    if candidates:
        listed = ", ".join(map(repr, candidates))
        return columns, (f"no lineage is read: there is no column parent_track_id, is it {listed}?",)
    return columns, ()


def _track_ids(columns: dict[str, Any], name: str) -> np.ndarray | None:
    """Return the values of a column if they are ids of tracks of the table, one per track, or none (0, -1, nothing)."""
    values = np.asarray(columns[name])
    if values.dtype.kind not in "iuf":
        return None
    whole = np.where(np.isnan(values), -1, values) if values.dtype.kind == "f" else values
    if (whole != np.floor(whole)).any() or (np.abs(whole) >= 2.0**53).any():
        return None
    parent, track_id = whole.astype(np.int64), columns["track_id"]
    known = np.isin(parent, track_id)
    if (~known & (parent > 0)).any() or (known & (parent < -1)).any():
        return None
    order = np.argsort(track_id, kind="stable")
    same_track = np.diff(track_id[order]) == 0
    if (same_track & (np.diff(parent[order]) != 0)).any():
        return None
    return np.where(known & (parent != track_id), parent, -1)
