"""The columns of a tracking table that have a meaning here: their types, and what cannot be right in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.errors import InputError
from viscy_data.optional import require
from viscy_data.tracks.dialect import TextTable

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_unique", "convert_column", "parents_or_none"]

_NUMBERS = ("track_id", "t")
_NUMBERS_OR_NONE = ("id", "parent_track_id", "parent_id")
_COORDINATES = ("y", "x", "z")
_FARTHEST = np.finfo(np.float32).max
_INEXACT = 2.0**53  # from here on float64 has no place for every whole number


def convert_column(path: str, name: str, table: TextTable) -> Any:
    """Return the values of a column in the type that its name asks for; other columns are kept as they are.

    Raises
    ------
    InputError
        Naming file, column, line and value.
    """
    column = table.columns[name]
    if name in _COORDINATES:
        values = _as_numbers(path, name, table).astype(np.float64)
        _refuse(path, name, table, values, ~(np.abs(values) <= _FARTHEST), "a finite number")
        return values.astype(np.float32)
    if name not in _NUMBERS + _NUMBERS_OR_NONE:
        return column.to_pandas()
    values = _whole_numbers(path, name, table)
    if name == "t":
        _refuse(path, name, table, values, values < 0, "a frame number, 0 or more")
    return values


def check_unique(path: str, track_id: np.ndarray, t: np.ndarray, line_of: Callable[[int], int] | None = None) -> None:
    """Refuse a track that is twice in a frame; ``line_of`` gives the line of a row, where there are any."""
    order = np.lexsort((t, track_id))
    repeated = (np.diff(track_id[order]) == 0) & (np.diff(t[order]) == 0)
    if repeated.any():
        row = int(order[1:][repeated].min())
        place = f"row {row}" if line_of is None else f"line {line_of(row)}"
        raise InputError(
            path,
            field="track_id, t",
            found=f"track {track_id[row]} more than once in frame {t[row]} ({place}), "
            f"{int(repeated.sum())} repeated rows",
            expected="each track at most once per frame",
        )


def parents_or_none(path: str, table: TextTable, parent: np.ndarray, track_id: np.ndarray) -> np.ndarray:
    """Return the parent track of each row, -1 for none: for numbers below 0, and for a track that names itself.

    Raises
    ------
    InputError
        If a number below -1 is the id of a track, so that it cannot stand for none.
    """
    _refuse(
        path,
        "parent_track_id",
        table,
        parent,
        (parent < -1) & np.isin(parent, track_id),
        "tracks that are parents to have ids of at least 0, as less stands for no parent",
        fix="number the tracks anew",
    )
    return np.where(parent == track_id, -1, np.maximum(parent, -1))


def _whole_numbers(path: str, name: str, table: TextTable) -> np.ndarray:
    """Return int64, exact; -1 stands for an empty cell where there may be none."""
    column, types = table.columns[name], require("pyarrow", extra="triplet").types
    if types.is_integer(column.type):
        may_be_none = name in _NUMBERS_OR_NONE
        empty = np.asarray(column.is_null())
        _refuse(path, name, table, np.full(len(column), np.nan), empty & (not may_be_none), "a whole number")
        return column.fill_null(-1).to_numpy().astype(np.int64)
    values = _as_numbers(path, name, table)
    if name in _NUMBERS_OR_NONE:
        values = np.where(np.isnan(values), -1.0, values)
    with np.errstate(invalid="ignore"):
        _refuse(path, name, table, values, ~(np.isfinite(values) & (values == np.floor(values))), "a whole number")
        _refuse(
            path,
            name,
            table,
            values,
            np.abs(values) >= _INEXACT,
            "whole numbers below 2^63, written without a point or exponent where they reach 2^53",
            fix="number the cells anew, or write the column as whole numbers",
        )
    return values.astype(np.int64)


def _as_numbers(path: str, name: str, table: TextTable) -> np.ndarray:
    """Return an integer or, with NaN for empty cells, a float64 array."""
    column: pa.ChunkedArray = table.columns[name]
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
    _refuse(path, name, table, values.to_numpy(), np.isnan(numbers) & values.notna().to_numpy(), "a number")
    return numbers


def _refuse(
    path: str, name: str, table: TextTable, values: np.ndarray, bad: np.ndarray, expected: str, fix: str = ""
) -> None:
    if not bad.any():
        return
    row = int(bad.argmax())
    more = f", and {int(bad.sum()) - 1} more" if bad.sum() > 1 else ""
    value = values[row]
    if isinstance(value, str):
        shown = repr(value)
    elif value != value:
        shown = "nothing"
    else:
        shown = str(value) if abs(value) < _INEXACT else table.text(name, row)
    found = f"{shown} in line {table.line(row)}{more}"
    raise InputError(path, field=name, found=found, expected=expected, fix=fix)
