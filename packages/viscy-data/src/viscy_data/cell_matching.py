"""Rows of two tables that speak of the same cells: labels, annotations, tracks and embeddings are joined by one rule.

A cell in a frame is a FOV of a store, or of an experiment, with a track and a frame; or with the number of the
observation.

>>> import pandas as pd
>>> cells = pd.DataFrame({"fov_name": ["A/1/0", "A/1/0"], "track_id": [3, 4], "t": [0, 0]})
>>> labels = pd.DataFrame({"fov_name": ["/A/1/0", "A/1/0"], "track_id": [4.0, 9.0], "t": [0, 0], "state": ["a", "b"]})
>>> match = match_cells(cells, labels, source="labels.csv")
>>> match.rows.tolist(), match.unmatched.tolist()
([-1, 0], [False, True])
>>> match.note
'1 of 2 rows of labels.csv name no cell, such as A/1/0/9/0'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.errors import InputError
from viscy_data.optional import require
from viscy_data.stores import canonical_fov_name, canonical_store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CELL_KEYS", "CellMatch", "match_cells"]

CELL_KEYS = (
    ("experiment", "fov_name", "track_id", "t"),
    ("store", "fov_name", "track_id", "t"),
    ("fov_name", "track_id", "t"),
    ("fov_name", "id"),
)
"""Columns that identify a cell in a frame; the first that both tables have are compared."""

_TEXTS = {"experiment": lambda name: str(name).strip(), "store": canonical_store, "fov_name": canonical_fov_name}
_INEXACT = 2.0**53  # from here on a float64 does not tell whole numbers from each other
_OWNERS = ("experiment", "store")
_NO_CELL, _NO_ROW = -(2**61), -(2**62)  # and below: numbers that are missing are not equal to each other


@dataclass(frozen=True)
class CellMatch:
    """Which row of a table speaks of which cell.

    Parameters
    ----------
    keys : tuple of str
        The columns that were compared.
    rows : ndarray of int64, shape (N,)
        For each cell its row of the table, -1 where the table does not name it.
    unmatched : ndarray of bool, shape (M,)
        Rows of the table that name none of the cells.
    note : str
        How many those are, with an example; empty when there are none.
    """

    keys: tuple[str, ...]
    rows: np.ndarray
    unmatched: np.ndarray
    note: str


def match_cells(
    cells: pd.DataFrame,
    table: pd.DataFrame,
    *,
    source: str,
    keys: Sequence[Sequence[str]] = CELL_KEYS,
    said: str = "annotated",
) -> CellMatch:
    """Find the row of a table that speaks of each cell.

    Parameters
    ----------
    cells : pandas.DataFrame, N rows
        What is to be told about; a cell may be in it several times.
    table : pandas.DataFrame, M rows
        Slashes at the ends of FOVs do not matter, nor do whole numbers that are written as floats.
    source : str
        What messages call the table.
    keys : sequence of sequence of str
        Sets of columns, in the order in which they are tried.
    said : str, default "annotated"
        What messages say that the table does with cells.

    Returns
    -------
    CellMatch

    Raises
    ------
    InputError
        If no set of columns is in both, the table names a cell twice, a number is none, or the cells are of several
        experiments, whose FOVs may have the same names, and the table does not say of which.
    """
    chosen = next((tuple(own) for own in keys if all(name in cells and name in table for name in own)), None)
    if chosen is None:
        expected = " or ".join(", ".join(own) for own in keys)
        found = f"columns {', '.join(map(str, table))}"
        raise InputError(source, found=found, expected=f"columns {expected}, which the cells have too")
    _refuse_several(cells, chosen, source)
    left, right = _canonical(cells, chosen, "cells", _NO_CELL), _canonical(table, chosen, source, _NO_ROW)
    if (repeated := right.duplicated()).any():
        found = f"cells that are {said} twice, such as {_name(right, int(repeated.argmax()))}"
        raise InputError(source, found=found, fix=f"keep one row per {', '.join(chosen)}")
    place = left.merge(right.assign(_row=np.arange(len(right))), on=list(chosen), how="left")["_row"]
    rows = place.fillna(-1).to_numpy().astype(np.int64)
    unmatched = ~np.isin(np.arange(len(table)), rows)
    return CellMatch(chosen, rows, unmatched, _note(right, unmatched, source))


def _refuse_several(cells: pd.DataFrame, keys: Sequence[str], source: str) -> None:
    """FOVs have the same names on every plate: without experiment or store they say nothing across several."""
    for name in _OWNERS:
        if name in cells and not set(_OWNERS) & set(keys) and cells[name].astype(str).nunique() > 1:
            found = f"no column {name}, and cells of {cells[name].astype(str).nunique()} of them"
            raise InputError(source, field=name, found=found, expected="the FOV's " + name, fix="add the column")


def _canonical(table: pd.DataFrame, keys: Sequence[str], source: str, none: int) -> pd.DataFrame:
    """Bring columns into the form in which they are compared: text, or int64."""
    pandas = require("pandas", extra="triplet")
    columns = {}
    for name in keys:
        values = table[name]
        if values.dtype.kind == "i" and not values.hasnans and name not in _TEXTS:
            columns[name] = values.to_numpy().astype(np.int64)
            continue
        which, distinct = pandas.factorize(values, use_na_sentinel=False)
        if name in _TEXTS:
            columns[name] = np.array([_TEXTS[name](value) for value in distinct], dtype=object)[which]
        else:
            absent = pandas.isna(distinct)
            numbers = [
                None if gone else _whole(value, source, name) for value, gone in zip(distinct, absent, strict=True)
            ]
            missing = np.array([number is None for number in numbers], dtype=bool)[which]
            known = np.array([number or 0 for number in numbers], dtype=np.int64)[which]
            columns[name] = np.where(missing, none - np.arange(len(table)), known)
    return pandas.DataFrame(columns)


def _whole(value: Any, source: str, name: str) -> int | None:
    """Return a whole number, however it is written; None for what is the number of no cell."""
    if isinstance(value, str) and not value.strip():
        return None
    if isinstance(value, float | np.floating) and abs(value) >= _INEXACT:
        raise InputError(
            source,
            field=name,
            found=f"{value!r}, which may stand for several numbers",
            expected="numbers of 2^53 and more without a point or an exponent, in a column without empty fields",
            fix="write the column as whole numbers",
        )
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        raise InputError(source, field=name, found=repr(value), expected="a number") from None
    is_whole = number.is_finite() and number == number.to_integral_value() and -(2**63) <= number < 2**63
    return int(number) if is_whole else None


def _note(table: pd.DataFrame, unmatched: np.ndarray, source: str) -> str:
    if not unmatched.any():
        return ""
    return (
        f"{int(unmatched.sum())} of {len(table)} rows of {source} name no cell, "
        f"such as {_name(table, int(unmatched.argmax()))}"
    )


def _name(table: pd.DataFrame, row: int) -> str:
    values = [table[name].iloc[row] for name in table]
    return "/".join("?" if not isinstance(value, str) and value <= _NO_CELL else str(value) for value in values)
