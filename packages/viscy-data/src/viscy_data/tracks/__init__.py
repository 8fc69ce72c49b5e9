"""Tracking tables: one CSV per FOV under ``<tracks>/<row>/<column>/<fov>/``.

A table has one row per observation (a cell in a frame): ``track_id, t, y, x`` and, when known, ``z``, ``id``,
``parent_track_id`` and ``parent_id``; -1 means none. What the many writers of such files make of this (whole numbers
as floats, empty cells for "no parent") is brought to one form here, and what cannot be right is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data._optional import require
from viscy_data.errors import InputError, MissingInputError, raise_all
from viscy_data.files import replacing
from viscy_data.stores import canonical_fov_name

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["find_tracks", "read_tracks", "write_tracks"]

_REQUIRED = ("track_id", "t", "y", "x")
_NUMBERS = ("track_id", "t")
_NUMBERS_OR_NONE = ("id", "parent_track_id", "parent_id")
_COORDINATES = ("y", "x", "z")


def find_tracks(tracks_path: str | Path, fov_name: str) -> Path | None:
    """Find the tracking table of a FOV.

    Parameters
    ----------
    tracks_path : str or Path
        Root of the tracking results.
    fov_name : str
        ``row/column/fov``.

    Returns
    -------
    Path or None
        The only CSV in the FOV's folder; None when there is no folder or no CSV in it.

    Raises
    ------
    InputError
        If there are several, since nothing says which one is meant.
    """
    folder = Path(tracks_path) / canonical_fov_name(fov_name)
    # Names with a leading dot are left by file managers and unfinished writes.
    tables = sorted(path for path in folder.glob("*.csv") if not path.name.startswith("."))
    if len(tables) > 1:
        raise InputError(
            str(folder),
            found=f"{len(tables)} CSV files: {', '.join(path.name for path in tables)}",
            expected="one tracking table per FOV",
            fix="keep one and move the others away",
        )
    return tables[0] if tables else None


def read_tracks(path: str | Path) -> pd.DataFrame:
    """Read and check a tracking table.

    Parameters
    ----------
    path : str or Path
        CSV with a header. A table of a header alone is an FOV without cells.

    Returns
    -------
    pandas.DataFrame
        In the order of the file: ``track_id``, ``t`` and, when present, ``id``, ``parent_track_id``, ``parent_id`` as
        int64 (-1 = none; a track that names itself as its parent has none), ``y``, ``x`` and, when present, ``z`` as
        float32 in pixels. Further columns are kept as they are.

    Raises
    ------
    MissingInputError
        If there is no such file.
    InputError
        Naming file and column: empty file, missing column, values that are no numbers, fractions where whole numbers
        are due, coordinates that are not finite, negative time, a track that occurs twice in a frame.
    """
    table = _read_csv(Path(path))
    missing = [name for name in _REQUIRED if name not in table.column_names]
    raise_all(
        InputError(str(path), field=name, found=f"columns {', '.join(table.column_names)}", expected="this column")
        for name in missing
    )
    columns, errors = {}, []
    for name in table.column_names:
        try:
            columns[name] = _convert(str(path), name, table[name])
        except InputError as err:
            errors.append(err)
    raise_all(errors)
    _check_unique(str(path), columns["track_id"], columns["t"])
    if "parent_track_id" in columns:
        parent = columns["parent_track_id"]
        parent[parent == columns["track_id"]] = -1
    return require("pandas", extra="triplet").DataFrame(columns)


def write_tracks(table: pd.DataFrame, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a tracking table as :func:`read_tracks` reads it.

    Parameters
    ----------
    table : pandas.DataFrame
        With at least ``track_id, t, y, x``. Known columns are written first, in the order of ``INDEX_COLUMNS``.
    path : str or Path
        Folders are made; the file appears in one step.
    overwrite : bool, default False
        Whether a file at ``path`` is replaced.

    Raises
    ------
    FileExistsError
        If there is a file and ``overwrite`` is False.
    ValueError
        If a required column is missing.
    """
    from viscy_data.typing import INDEX_COLUMNS  # imports torch, which reading does not need

    path = Path(path)
    if missing := [name for name in _REQUIRED if name not in table.columns]:
        raise ValueError(f"tracking table lacks {', '.join(missing)}; found {', '.join(map(str, table.columns))}")
    known = [name for name in INDEX_COLUMNS if name in table.columns]
    others = [name for name in table.columns if name not in known]
    with replacing(path, overwrite, remedy="pass overwrite=True to replace it") as temporary:
        table[known + others].to_csv(temporary, index=False)


def _read_csv(path: Path) -> pa.Table:
    csv = require("pyarrow.csv", extra="triplet")
    try:
        size = path.stat().st_size
    except FileNotFoundError as err:
        raise MissingInputError(str(path), found="nothing", expected="a tracking table (CSV)") from err
    try:
        return csv.read_csv(
            path,
            # One block, since types are inferred from the first; callers read many files at once, one thread each.
            read_options=csv.ReadOptions(use_threads=False, block_size=min(size + 1, 2**31 - 1)),
            convert_options=csv.ConvertOptions(strings_can_be_null=True),
        )
    except require("pyarrow", extra="triplet").ArrowInvalid as err:
        raise InputError(
            str(path), found="an empty file" if size == 0 else str(err), expected="a CSV table with a header"
        ) from err


def _convert(path: str, name: str, column: pa.ChunkedArray) -> Any:
    if name in _COORDINATES:
        values = _as_numbers(path, name, column).astype(np.float64)
        _refuse(path, name, values, ~np.isfinite(values), "a finite number")
        return values.astype(np.float32)
    if name not in _NUMBERS + _NUMBERS_OR_NONE:
        return column.to_pandas()
    values = _as_numbers(path, name, column)
    if values.dtype.kind == "f":
        if name in _NUMBERS_OR_NONE:
            values = np.where(np.isnan(values), -1.0, values)
        with np.errstate(invalid="ignore"):
            _refuse(path, name, values, ~(np.isfinite(values) & (values == np.floor(values))), "a whole number")
    values = values.astype(np.int64)
    if name == "t":
        _refuse(path, name, values, values < 0, "a frame number, 0 or more")
    return np.maximum(values, -1) if name in _NUMBERS_OR_NONE else values


def _as_numbers(path: str, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Return an integer or, with NaN for empty cells, a float64 array."""
    types = require("pyarrow", extra="triplet").types
    if types.is_null(column.type):
        return np.full(len(column), np.nan)
    if types.is_integer(column.type) and column.null_count == 0:
        return column.to_numpy()
    if types.is_integer(column.type) or types.is_floating(column.type):
        return column.to_numpy().astype(np.float64)
    pandas = require("pandas", extra="triplet")
    values = pandas.Series(column.to_pylist(), dtype=object)
    numbers = pandas.to_numeric(values.astype(str), errors="coerce").to_numpy(np.float64)
    _refuse(path, name, values.to_numpy(), np.isnan(numbers) & values.notna().to_numpy(), "a number")
    return numbers


def _refuse(path: str, name: str, values: np.ndarray, bad: np.ndarray, expected: str) -> None:
    if not bad.any():
        return
    row = int(bad.argmax())
    more = f", and {int(bad.sum()) - 1} more" if bad.sum() > 1 else ""
    value = values[row]
    shown = repr(value) if isinstance(value, str) else "nothing" if value != value else str(value)
    raise InputError(path, field=name, found=f"{shown} in line {row + 2}{more}", expected=expected)


def _check_unique(path: str, track_id: np.ndarray, t: np.ndarray) -> None:
    order = np.lexsort((t, track_id))
    repeated = (np.diff(track_id[order]) == 0) & (np.diff(t[order]) == 0)
    if repeated.any():
        row = order[1:][repeated].min()
        raise InputError(
            path,
            field="track_id, t",
            found=f"track {track_id[row]} more than once in frame {t[row]} (line {row + 2}), "
            f"{int(repeated.sum())} repeated rows",
            expected="each track at most once per frame",
        )
