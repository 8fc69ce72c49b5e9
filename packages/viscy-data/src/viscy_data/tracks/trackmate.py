"""Tracks of TrackMate: its XML file, or its table of spots (CSV).

The XML has the links between spots, hence divisions. The table has none: it will do as long as no track divides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from viscy_data.errors import InputError
from viscy_data.optional import require
from viscy_data.stores import FovInfo
from viscy_data.tracks.columns import check_unique
from viscy_data.tracks.dialect import TRACKMATE, read_text_table
from viscy_data.tracks.graph import GraphError, tracks_of_graph
from viscy_data.tracks.imported import ImportedTracks
from viscy_data.tracks.units import pixel_size

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

__all__ = ["read_trackmate_csv", "read_trackmate_xml"]

_POSITION = ("POSITION_Z", "POSITION_Y", "POSITION_X")
_SPOT = ("ID", "FRAME", *_POSITION)
_LINK = ("SPOT_SOURCE_ID", "SPOT_TARGET_ID")
_FIRST_INEXACT = 2**53  # as a float it cannot be told from the next whole number


def read_trackmate_xml(path: Path, fov: FovInfo | None = None) -> ImportedTracks:
    """Read the spots and links of a TrackMate XML file.

    Parameters
    ----------
    path : Path
    fov : FovInfo, optional
        The image; its scale converts positions in physical units.

    Returns
    -------
    ImportedTracks
        Spots without a link are left out and counted.

    Raises
    ------
    InputError
        If it is no such file, if links make no tracks (merges), or the size of a pixel is not known.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as err:
        raise InputError(str(path), found=f"no XML ({err})", expected="a file of TrackMate") from err
    model = root.find("Model")
    if model is None:
        raise InputError(str(path), found=f"XML of {root.tag!r} without a model", expected="a file of TrackMate")
    spots = [[_attribute(path, spot, name) for name in _SPOT] for spot in model.iter("Spot")]
    ends = [[_attribute(path, edge, name) for name in _LINK] for edge in model.iter("Edge")]
    values, links = (_checked(path, *of) for of in ((spots, _SPOT), (ends, _LINK)))
    tracked = np.isin(values[:, 0], links)
    node, t = values[tracked, :2].astype(np.int64).T
    try:
        track, parent = tracks_of_graph(node, t, links.astype(np.int64))
    except GraphError as err:
        raise InputError(str(path), found=str(err), expected="every spot linked to at most one earlier spot") from err
    size = pixel_size(str(path), fov, model.get("spatialunits", ""))
    return ImportedTracks(_table(values[tracked], track, parent, size), _untracked(tracked))


def read_trackmate_csv(path: Path, fov: FovInfo | None = None) -> ImportedTracks:
    """Read the table of spots that TrackMate exports.

    Parameters
    ----------
    path : Path
    fov : FovInfo, optional
        The image; its scale converts positions in physical units.

    Returns
    -------
    ImportedTracks
        Spots without a track are left out and counted.

    Raises
    ------
    InputError
        If columns are missing, a track is twice in a frame (it divides, which the table cannot say), or the size of a
        pixel is not known.
    """
    text = read_text_table(path, required=TRACKMATE)
    pandas, names = require("pandas", extra="triplet"), text.columns.column_names
    if missing := [name for name in TRACKMATE if name not in names]:
        raise InputError(str(path), field=missing[0], found=f"columns {', '.join(names)}", expected="this column")
    frame = text.columns.to_pandas()
    numbers = {name: pandas.to_numeric(frame[name], errors="coerce") for name in (*_SPOT, "TRACK_ID") if name in frame}
    numbers.setdefault("ID", pandas.Series(np.arange(len(frame))))
    numbers.setdefault("POSITION_Z", pandas.Series(np.zeros(len(frame))))
    tracked = numbers["TRACK_ID"].notna().to_numpy()
    names = ("TRACK_ID", *_SPOT)
    values = _checked(path, np.column_stack([numbers[name].to_numpy(np.float64) for name in names])[tracked], names)
    track, values = values[:, 0].astype(np.int64), values[:, 1:]
    try:
        check_unique(
            str(path), track, values[:, 1].astype(np.int64), lambda row: text.line(int(tracked.nonzero()[0][row]))
        )
    except InputError as err:
        fix = "export the XML file of TrackMate, which has the links"
        raise InputError(
            str(path), field="TRACK_ID", found=err.found, expected="tracks that do not divide", fix=fix
        ) from err
    size = pixel_size(str(path), fov, next((line["POSITION_X"] for line in reversed(text.extra_lines)), ""))
    return ImportedTracks(_table(values, track, np.full(len(track), -1), size), text.notes + _untracked(tracked))


def _attribute(path: Path, element: ElementTree.Element, name: str) -> float:
    """Read a number of a spot or a link; images without depth may leave out z."""
    text = element.get(name, "0" if name == "POSITION_Z" else None)
    try:
        return float(text)
    except (TypeError, ValueError) as err:
        where = f"{element.tag} {element.get('ID') or ''}".strip()
        raise InputError(str(path), field=f"{where}, {name}", found=repr(text), expected="a number") from err


def _checked(path: Path, rows: ArrayLike, names: Sequence[str]) -> np.ndarray:
    """Refuse numbers that are none, and ids and frames that are not whole, or larger than a float tells apart."""
    values = np.asarray(rows, np.float64).reshape(-1, len(names))
    for name, column in zip(names, values.T, strict=True):
        bad = ~np.isfinite(column)
        if name not in _POSITION:
            bad |= (column % 1 != 0) | (np.abs(column) >= _FIRST_INEXACT)
        if bad.any():
            found = f"{column[bad.argmax()]:.17g}, of spot or link {bad.argmax() + 1}"
            expected = "a number" if name in _POSITION else "a whole number below 2^53"
            raise InputError(str(path), field=name, found=found, expected=expected)
    return values


def _untracked(tracked: np.ndarray) -> tuple[str, ...]:
    n_single = int((~tracked).sum())
    return (f"{n_single} spots belong to no track and are left out",) if n_single else ()


def _table(values: np.ndarray, track: np.ndarray, parent: np.ndarray, size: tuple[float, float, float]) -> pd.DataFrame:
    columns = {"track_id": track, "t": values[:, 1].astype(np.int64), "id": values[:, 0].astype(np.int64)}
    columns["parent_track_id"] = parent
    for place, name in enumerate("zyx"):
        if name != "z" or values[:, 2].any():
            columns[name] = (values[:, 2 + place] / size[place]).astype(np.float32)
    return require("pandas", extra="triplet").DataFrame(columns)
