"""Annotations of cells: read, found in a plate (and in its tracks), and their labels as numbers.

>>> import pandas as pd
>>> label_numbers(pd.Series(["infected", "uninfected", None, "1"]), "infection_state").tolist()
[1, 0, -1, 1]
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.cell_matching import match_cells
from viscy_data.checks import near_matches
from viscy_data.errors import InputError, MissingInputError, raise_all
from viscy_data.labels import (
    LABEL_CELL_CYCLE_STATE,
    LABEL_CELL_DIVISION_STATE,
    LABEL_CELL_REMODELING_STATE,
    LABEL_INFECTION_STATE,
)
from viscy_data.optional import require
from viscy_data.stores import FovInfo, canonical_fov_name
from viscy_data.tracks import find_tracks, read_tracks
from viscy_data.tracks.columns import convert_column
from viscy_data.tracks.dialect import read_text_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["annotated_cells", "label_numbers", "read_annotations"]

_STATES = {
    "infection_state": LABEL_INFECTION_STATE,
    "cell_division_state": LABEL_CELL_DIVISION_STATE,
    "cell_remodeling_state": LABEL_CELL_REMODELING_STATE,
    "cell_cycle_state": LABEL_CELL_CYCLE_STATE,
}
_SHOWN = 5


def read_annotations(path: str | Path) -> pd.DataFrame:
    """Read a table of annotations of one plate.

    Parameters
    ----------
    path : str or Path
        CSV with ``fov_name``, columns that say which cell it is, and labels.

    Returns
    -------
    pandas.DataFrame
        ``fov_name`` without slashes at its ends; columns of tracking tables in the types of
        :func:`viscy_data.read_tracks`, others as they are.

    Raises
    ------
    MissingInputError
        If there is no such file.
    InputError
        If it is no table, has no ``fov_name``, or a value cannot be right; with column and line.
    """
    text = read_text_table(Path(path))
    for note in text.notes:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    columns = {name: convert_column(str(path), name, text) for name in text.columns.column_names}
    table = require("pandas", extra="triplet").DataFrame(columns)
    raise_all(_missing(table, ["fov_name"], str(path)))
    return table.assign(fov_name=table["fov_name"].map(canonical_fov_name))


def annotated_cells(
    annotation: pd.DataFrame,
    fovs: Sequence[FovInfo],
    label_column: str,
    *,
    where: str = "annotation",
    tracks_path: str | Path | None = None,
) -> pd.DataFrame:
    """Find the annotated cells in a plate.

    Parameters
    ----------
    annotation : pandas.DataFrame
        One row per annotated observation: ``fov_name``, ``t``, ``y``, ``x`` and the label. With tracks it is enough to
        say which cell it is: ``fov_name`` with ``track_id`` and ``t``, or with ``id``.
    fovs : sequence of FovInfo
        Of the plate.
    label_column : str
        Column of the labels.
    where : str, default "annotation"
        What messages call the table.
    tracks_path : str or Path, optional
        Tracking tables of the plate, from which the places of the cells are taken.

    Returns
    -------
    pandas.DataFrame
        The rows that were found, in their order, with ``fov_index`` (into ``fovs``) and ``label``: int64, -1 where it
        is not known. What was not found is counted in a warning, and so are rows that say the same twice.

    Raises
    ------
    InputError
        For missing columns, labels that are no classes, different labels of one observation, or when no row is found.
    """
    raise_all(_missing(annotation, ["fov_name", label_column, *([] if tracks_path else ["t", "y", "x"])], where))
    names = annotation["fov_name"].map(canonical_fov_name)
    index = names.map({fov.name: number for number, fov in enumerate(fovs)}).fillna(-1).to_numpy(np.int64)
    cells = annotation.assign(
        fov_name=names, fov_index=index, label=label_numbers(annotation[label_column], label_column, where)
    )
    cells = _found(cells, index >= 0, where, "are of FOVs that the plate does not have")
    if tracks_path:
        cells = _located(cells, fovs, Path(tracks_path), where)
    return _once(cells, where).reset_index(drop=True)


def label_numbers(labels: pd.Series, label_column: str, where: str = "annotation") -> np.ndarray:
    """Return labels as int64: numbers as they are, names by ``viscy_data.labels``, -1 for none.

    Raises
    ------
    InputError
        Naming a label that is neither a whole number nor one of the names of its column.
    """
    names = _STATES.get(label_column, {"unknown": -1})
    values = labels.astype(object).where(labels.notna(), "unknown").to_numpy()
    numbers = {value: _number(value, names) for value in dict.fromkeys(values)}
    raise_all(
        InputError(
            where,
            field=label_column,
            found=repr(value),
            expected=f"a whole number, or {near_matches(value, names)}",
            fix="write classes as 0, 1, ... and -1 for unknown",
        )
        for value, number in numbers.items()
        if number is None
    )
    return np.array([numbers[value] for value in values], np.int64)


def _number(value: Any, names: dict[str, int]) -> int | None:
    if isinstance(value, str) and value.strip() in names:
        return names[value.strip()]
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number == np.floor(number) else None


def _missing(table: pd.DataFrame, names: Sequence[str], where: str) -> list[InputError]:
    return [
        InputError(where, field=name, found="no such column", expected=near_matches(name, table.columns))
        for name in names
        if name not in table
    ]


def _found(cells: pd.DataFrame, found: np.ndarray, where: str, why: str) -> pd.DataFrame:
    """Leave out what was not found, and say how much it is."""
    if found.all():
        return cells
    names = sorted(set(cells["fov_name"][~found]))
    counted = f"{int((~found).sum())} of {len(cells)} annotations {why}"
    shown = f"FOVs {', '.join(names[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''}"
    if not found.any():
        raise InputError(where, found=f"{counted}: {shown}", expected="annotations of this plate")
    warnings.warn(f"{where}: {counted} and are left out: {shown}", stacklevel=3)
    return cells[found]


def _located(cells: pd.DataFrame, fovs: Sequence[FovInfo], tracks_path: Path, where: str) -> pd.DataFrame:
    """Take everything but labels from the tracking tables, matched on FOV, track and frame or on FOV and id."""
    pandas = require("pandas", extra="triplet")
    key = ["track_id", "t"] if {"track_id", "t"} <= set(cells) else ["id"]
    raise_all(_missing(cells, key, where))
    tables = []
    for number in sorted(set(cells["fov_index"])):
        path = find_tracks(tracks_path, fovs[number].name)
        if path is None:
            raise MissingInputError(f"{tracks_path}, FOV {fovs[number].name}", found="no CSV", expected="tracks")
        tables.append(read_tracks(path).assign(fov_name=fovs[number].name))
    tracks = pandas.concat(tables, ignore_index=True)
    raise_all(_missing(tracks, key, str(tracks_path)))
    places = match_cells(cells, tracks, source=str(tracks_path), keys=[("fov_name", *key)], said="listed").rows
    cells = _found(cells.assign(_place=places), places >= 0, where, "are of no cell in the tracks")
    own = tracks.drop(columns="fov_name").iloc[cells["_place"]].set_index(cells.index)
    others = [name for name in cells if name not in own and name != "_place"]
    return pandas.concat([cells[others], own], axis=1)


def _once(cells: pd.DataFrame, where: str) -> pd.DataFrame:
    """Leave out rows that repeat another one; refuse those that contradict it."""
    key = next((key for key in (["track_id", "t"], ["id"]) if set(key) <= set(cells)), ["t", "y", "x"])
    repeated = cells.duplicated(["fov_index", *key])
    if not repeated.any():
        return cells
    contradicting = repeated & ~cells.duplicated(["fov_index", *key, "label"])
    if contradicting.any():
        row = cells[contradicting].iloc[0]
        names = ", ".join(f"{name} {row[name]}" for name in ("fov_name", *key))
        raise InputError(
            where,
            field=", ".join(key),
            found=f"{int(contradicting.sum())} observations with two labels, such as {names}",
            expected="one label per observation",
        )
    warnings.warn(f"{where}: {int(repeated.sum())} of {len(cells)} annotations repeat another one", stacklevel=3)
    return cells[~repeated]
