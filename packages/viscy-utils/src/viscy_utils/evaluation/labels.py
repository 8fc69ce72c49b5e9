"""Labels of cells: which cells have none, and which columns are no labels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from viscy_data.errors import InputError

__all__ = ["MAX_CLASSES", "UNKNOWN", "check_classes", "is_missing", "is_unknown"]

UNKNOWN = "unknown"
"""What wells without a condition, and cells that an annotator could not tell, are called."""

MAX_CLASSES = 50
"""A column of more different numbers is taken for a measurement."""

# What Python, pandas and R write for a value that is not there.
_WRITTEN_MISSING = ("", "nan", "NaN", "None", "<NA>", "NaT", "NA")


def is_missing(labels: np.ndarray | pd.Series) -> np.ndarray:
    """Tell which labels are not there: NaN, None, NA, blank text, or the text that such a value becomes in a table.

    Parameters
    ----------
    labels : array_like, shape (N,)

    Returns
    -------
    ndarray of bool, shape (N,)

    Examples
    --------
    >>> is_missing(np.array(["infected", "", "nan", None], dtype=object)).tolist()
    [False, True, True, True]
    """
    values = pd.Series(np.asarray(labels, dtype=object))
    text = values.map(lambda value: value.strip() if isinstance(value, str) else value)
    return (values.isna() | text.isin(_WRITTEN_MISSING)).to_numpy(dtype=bool)


def is_unknown(labels: np.ndarray | pd.Series) -> np.ndarray:
    """Tell which labels say that the state is not known."""
    return np.array([isinstance(value, str) and value.strip() == UNKNOWN for value in labels], dtype=bool)


def check_classes(labels: np.ndarray | pd.Series, column: str, *, where: str) -> None:
    """Refuse a column that measures instead of naming classes.

    Raises
    ------
    InputError
        For numbers that are not whole, and for more than 50 different numbers.
    """
    present = pd.Series(np.asarray(labels, dtype=object)[~is_missing(labels)])
    if any(isinstance(value, str | bool | np.bool_) for value in present):
        return
    values = pd.to_numeric(present, errors="coerce").dropna().unique()
    if len(values) > MAX_CLASSES or (values % 1 != 0).any():
        raise InputError(
            where,
            field=f"label {column}",
            found=f"{len(values)} different numbers from {values.min():.4g} to {values.max():.4g}",
            expected="a column of classes",
            fix="choose another column, or make classes of it (pandas.cut) in a table for --labels",
        )
