"""The columns of many tracking tables joined, each in one type.

A column may be numbers, true or false, or text. A table that lacks it, or has nothing in it, has no say. Where tables
disagree nothing is converted: the column and two of the files are named.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dynaclr.index.tracks_table import ID_COLUMNS, FovTracks
from viscy_data.errors import InputError, raise_all

__all__ = ["join_columns"]

_EXACT_FLOAT64 = 2**53


def join_columns(parts: Sequence[FovTracks], paths: Sequence[str]) -> pd.DataFrame:
    """Join columns by name.

    Parameters
    ----------
    parts : sequence of FovTracks
        Tables of FOVs.
    paths : sequence of str
        Their files, for messages.

    Returns
    -------
    pandas.DataFrame
        Numbers with NaN (or -1, for ids) where a table has none; text, and true or false with gaps, categorical.

    Raises
    ------
    InputError
        Naming column and files, if a column is of one type here and of another there.
    """
    joined, errors = {}, []
    for name in dict.fromkeys(name for part in parts for name in part.columns):
        try:
            joined[name] = _join(name, parts, paths)
        except InputError as err:
            errors.append(err)
    raise_all(errors)
    return pd.DataFrame(joined, copy=False)


def _join(name: str, parts: Sequence[FovTracks], paths: Sequence[str]) -> np.ndarray | pd.Categorical:
    # Tables without a row say nothing about the type of their columns.
    filled = [number for number, part in enumerate(parts) if len(part.track)] or [0]
    kinds = {number: _kind(parts[number].columns.get(name)) for number in filled}
    first_of = {kind: number for number, kind in reversed(kinds.items()) if kind}
    if len(first_of) > 1:
        (kind, number), (other_kind, other) = sorted(first_of.items(), key=lambda entry: entry[1])[:2]
        raise InputError(
            paths[other],
            field=name,
            found=f"{other_kind}, but {kind} in {paths[number]}",
            expected="a column of one type in all tables",
            fix="write it alike everywhere, or rename it in one of the files",
        )
    values = [_values(name, parts[number]) for number in filled]
    kind = next(iter(first_of), "numbers")
    if kind == "numbers":
        return _join_numbers(name, values, [paths[number] for number in filled])
    if all(value is not None and value.dtype == bool for value in values):
        return np.concatenate(values)
    sizes = [len(parts[number].track) for number in filled]
    return pd.Categorical(np.concatenate([_texts(*each) for each in zip(values, sizes, strict=True)]))


def _kind(column: np.ndarray | None) -> str:
    """Name the type of a column, "" if it holds nothing."""
    if column is None or pd.isna(column).all():
        return ""
    if column.dtype.kind in "iuf":
        return "numbers"
    present = column[~pd.isna(column)]
    return "true or false" if all(isinstance(value, bool | np.bool_) for value in present) else "text"


def _values(name: str, part: FovTracks) -> np.ndarray | None:
    """Return a column; None if the table has none or nothing in it, unless that is an array of numbers."""
    column = part.columns.get(name)
    if column is None or (column.dtype.kind not in "iuf" and pd.isna(column).all()):
        none = np.int16(-1) if name in ID_COLUMNS else np.float32(np.nan)
        return np.full(len(part.track), none) if column is None or len(column) else column
    return column


def _join_numbers(name: str, values: Sequence[np.ndarray], paths: Sequence[str]) -> np.ndarray:
    joined = np.concatenate(values)
    if joined.dtype.kind == "f":
        for value, path in zip(values, paths, strict=True):
            if value.dtype.kind in "iu" and len(value) and np.abs(value).max() > _EXACT_FLOAT64:
                raise InputError(
                    path,
                    field=name,
                    found=f"the whole number {np.abs(value).max()} beside fractions or gaps in other tables",
                    expected="numbers below 2^53 in such a column",
                    fix="rename the column in one of the files",
                )
    return joined


def _texts(value: np.ndarray, size: int) -> np.ndarray:
    texts = np.full(size, None, dtype=object)
    present = ~pd.isna(value)
    texts[present] = [str(entry) for entry in value[present]]
    return texts
