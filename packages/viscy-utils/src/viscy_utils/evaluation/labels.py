"""Labels of cells: tables of them, which cells have none, and which columns are no labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from viscy_data.cell_matching import CellMatch, match_cells
from viscy_data.errors import InputError, MissingInputError
from viscy_data.optional import from_extra
from viscy_data.packed_files import unpacked
from viscy_utils.evaluation.embedded import CELL, Embedded

with from_extra("eval", package="viscy-utils"):
    import pandas as pd

__all__ = [
    "MAX_CLASSES",
    "UNKNOWN",
    "add_labels",
    "check_classes",
    "is_missing",
    "is_unknown",
    "match_labels",
    "only_labelled",
]

UNKNOWN = "unknown"
"""What wells without a condition, and cells that an annotator could not tell, are called."""

MAX_CLASSES = 50
"""A column of more different numbers is taken for a measurement."""

# What Python, pandas, R, spreadsheets and databases write for a value that is not there.
_WRITTEN_MISSING = ("", "nan", "NaN", "None", "<NA>", "NaT", "NA", "N/A", "n/a", "#N/A", "NULL", "null")
_SEPARATORS = {";": "semicolons", "\t": "tabs"}  # as spreadsheets write them


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
    values = _stripped(labels)
    return (values.isna() | values.isin(_WRITTEN_MISSING)).to_numpy(dtype=bool)


def is_unknown(labels: np.ndarray | pd.Series) -> np.ndarray:
    """Tell which labels say that the state is not known, in small letters or capitals."""
    return np.array([isinstance(value, str) and value.casefold() == UNKNOWN for value in _stripped(labels)], dtype=bool)


def _stripped(labels: np.ndarray | pd.Series) -> pd.Series:
    """Return labels as objects, text without blanks around it."""
    values = pd.Series(np.asarray(labels, dtype=object))
    return values.map(lambda value: value.strip() if isinstance(value, str) else value)


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


def read_label_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV file of annotations, which may be packed (``.csv.gz``).

    Only an empty field is a missing value: "NA" or "None" may name a class in somebody's table, and whoever leaves
    such cells out says so.

    Raises
    ------
    MissingInputError, InputError
        If there is no file, or no table in it.
    """
    try:
        source = unpacked(path)
        table = pd.read_csv(source, keep_default_na=False, na_values=[""], low_memory=False, compression=None)
    except FileNotFoundError as err:
        raise MissingInputError(str(path), found="no such file", expected="a CSV file of labels") from err
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as err:
        raise InputError(str(path), found=f"no table ({err})", expected="a CSV file of labels") from err
    header = str(table.columns[0])
    if len(table.columns) == 1 and (separators := [name for mark, name in _SEPARATORS.items() if mark in header]):
        fix = "save it anew with commas, or in Python: pandas.read_csv(path, sep=None, engine='python').to_csv(...)"
        found = f"{' and '.join(separators)} between columns: {header!r}"
        raise InputError(str(path), found=found, expected="commas", fix=fix)
    return table


def only_labelled(embedded: Embedded, column: str) -> Embedded:
    """Leave out the cells without a label, and those whose label is ``unknown``.

    Parameters
    ----------
    embedded : Embedded
    column : str
        Of ``obs``. Blanks around a text do not make another class of it.

    Raises
    ------
    InputError
        If no cell has a label, or the column measures instead of naming classes.
    """
    check_classes(embedded.obs[column], column, where=embedded.name)
    labelled = embedded.without(is_missing(embedded.obs[column]), f"no {column}")
    labelled = labelled.without(is_unknown(labelled.obs[column]), f"{column} is {UNKNOWN!r}")
    if not len(labelled.obs):
        found = "; ".join(map(str, labelled.left_out))
        raise InputError(
            embedded.name,
            field=f"label {column}",
            found=found,
            expected="cells with a label",
            fix="name another column with --label, or a table with --labels. Conditions are what condition_wells says "
            "in the configuration of the experiments: name the wells there and predict again",
        )
    return replace(labelled, obs=labelled.obs.assign(**{column: _stripped(labelled.obs[column]).to_numpy()}))


def add_labels(embedded: Embedded, labels: pd.DataFrame, column: str, *, source: str) -> Embedded:
    """Attach a column of an annotation table to the cells; cells that the table does not name are left out.

    Parameters
    ----------
    embedded : Embedded
        Cells to annotate.
    labels : pandas.DataFrame
        Columns ``experiment, fov_name, track_id, t`` and ``column``. Slashes at the ends of FOVs do not matter.
    column : str
        Name of the label.
    source : str
        Where the table comes from, for messages.

    Raises
    ------
    InputError
        If columns are missing, a cell is annotated twice, or no cell is annotated.
    """
    values, match = match_labels(embedded.obs, labels, column, source=source)
    annotated = match.rows >= 0
    found = embedded.without(~annotated, f"not in {source}")
    found = replace(found, obs=found.obs.assign(**{column: values[annotated]}))
    if match.unmatched.any():
        note = f"{match.unmatched.sum()} of {len(labels)} rows of {source} name no embedded cell"
        found = replace(found, notes=(*found.notes, note))
    return found


def match_labels(obs: pd.DataFrame, labels: pd.DataFrame, column: str, *, source: str) -> tuple[np.ndarray, CellMatch]:
    """Look the label of each cell up in a table of annotations.

    Parameters
    ----------
    obs : pandas.DataFrame, N rows
        Columns ``experiment, fov_name, track_id, t``, as `viscy_utils.evaluation.embedded.canonical_cells` writes them.
    labels, column, source
        As in :func:`add_labels`.

    Returns
    -------
    values : ndarray, shape (N,)
        What the table says, and NaN for cells that it does not name.
    match : CellMatch
        Which cells it names, and which of its rows name none.

    Raises
    ------
    InputError
        If columns are missing, a cell is annotated twice, or no cell is annotated.
    """
    missing = [name for name in [*CELL, column] if name not in labels]
    if missing:
        raise InputError(source, field=", ".join(missing), found=f"columns {', '.join(labels)}", fix="add the columns")
    match = match_cells(obs, labels, source=source, keys=[CELL])
    if not (match.rows >= 0).any():
        raise InputError(
            source,
            found=f"{_first_cell(labels)} and others, no annotation of any embedded cell",
            expected=f"cells such as {_first_cell(obs)} (experiment, FOV, track, t)",
            fix="compare the names",
        )
    return labels[column].reset_index(drop=True).reindex(match.rows).to_numpy(), match


def _first_cell(table: pd.DataFrame) -> str:
    return "/".join(str(table[name].iloc[0]) for name in CELL)
