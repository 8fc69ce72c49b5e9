"""The map of cells: coordinates, columns that colour them, tracks and images, as the script of the page wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from viscy_data.optional import from_extra, require
from viscy_utils.evaluation.labels import is_missing
from viscy_utils.reports.html.packing import pack, script_json
from viscy_utils.reports.html.thumbnails import ImageSheets
from viscy_utils.reports.numbers import significant
from viscy_utils.reports.panels import class_colors

with from_extra("report", package="viscy-utils"):
    import pandas as pd

__all__ = ["MOST_CLASSES", "CellMap", "MapView", "color_columns"]

MOST_CLASSES = 40
"""A column of more classes does not colour a map: nobody could tell them apart."""

NOT_KNOWN = "not known"

_N_DRAWN_TRACKS = 24
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
_IDENTITIES = ("track_id", "id", "parent_track_id", "parent_id", "predict_sample", "y", "x", "z")


class MapView(NamedTuple):
    """One way to lay the cells out.

    Parameters
    ----------
    name : str
        Embedding and method.
    points : ndarray of float, shape (N, 2)
        NaN for cells that it does not place.
    axes : tuple of str
        What the axes are called.
    words : str
        What a reader must know, such as how many cells are drawn.
    """

    name: str
    points: np.ndarray
    axes: tuple[str, str]
    words: str = ""


@dataclass(frozen=True)
class CellMap:
    """Cells on one or more maps.

    Parameters
    ----------
    cells : DataFrame
        N rows with ``experiment, fov_name, track_id, t`` and the columns that may colour them. Points are drawn in
        the order of the rows, which should be random.
    views : sequence of MapView
        At least one.
    colors : sequence of str
        Columns that colour the points, the first at the beginning.
    held_out : sequence of str
        Experiments that no probe was trained on: their cells are triangles.
    images : ImageSheets, optional
    missing_image : str
        What is said of a cell without an image.
    titles : dict of str to str
        How columns are called, if not by their names.
    """

    cells: pd.DataFrame
    views: Sequence[MapView]
    colors: Sequence[str]
    held_out: Sequence[str] = ()
    images: ImageSheets = field(default_factory=lambda: ImageSheets(np.zeros(0, np.int64), (), (1, 1), ()))
    missing_image: str = "no image"
    titles: dict[str, str] = field(default_factory=dict)

    def html(self) -> str:
        """Return the controls, the map and its legend, the data and the script that draws it."""
        script = files("viscy_utils.reports.html").joinpath("assets", "map.js").read_text(encoding="utf8")
        return (
            f'{_BODY}\n<script type="application/json" id="map-data">{script_json(self._record())}</script>\n'
            f"<script>{script}</script>\n"
        )

    def _record(self) -> dict[str, Any]:
        cells = self.cells
        track, parents = _tracks(cells)
        held_out = cells["experiment"].astype(str).isin(self.held_out).to_numpy()
        fovs = pd.Categorical(cells["experiment"].astype(str) + ", " + cells["fov_name"].astype(str))
        frames = cells["t"].to_numpy()
        return {
            "n": len(cells),
            "font": _FONT,
            "gradient": _gradient(),
            "views": [self._view(view) for view in self.views],
            "columns": [self._column(name) for name in self.colors],
            "held_out": pack(held_out),
            "held_out_names": [name for name in self.held_out if held_out.any()],
            "track": pack(track),
            "parent": pack(parents),
            "by_track": pack(np.lexsort((frames, track))),
            "drawn_tracks": pack(_drawn(track)),
            "images": self.images.record(self.missing_image),
            "cells": {
                "fov_names": list(fovs.categories),
                "fov": pack(fovs.codes.astype(np.int64)),
                "track_id": pack(cells["track_id"].to_numpy(np.int64)),
                "t": pack(frames.astype(np.int64)),
            },
        }

    def _view(self, view: MapView) -> dict[str, Any]:
        placed = np.flatnonzero(np.isfinite(view.points).all(axis=1))
        x, y = np.asarray(view.points[placed], np.float32).T
        # Titles of axes are read as markup by plotly.
        axes = [escape(axis, quote=False) for axis in view.axes]
        cells = None if len(placed) == len(view.points) else pack(placed)
        return {"name": view.name, "cells": cells, "x": pack(x), "y": pack(y), "axes": axes, "words": view.words}

    def _column(self, name: str) -> dict[str, Any]:
        column = {"title": self.titles.get(name, name), "note": ""}
        values = self.cells[name]
        if _is_number(values):
            numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float32)
            known = numbers[np.isfinite(numbers)]
            low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
            high = high if high > low else low + 1.0
            ends = {"low": low, "high": high, "low_text": significant(low, 3), "high_text": significant(high, 3)}
            return column | ends | {"values": pack(numbers), "classes": None}
        texts = _texts(values)
        names, codes = np.unique(texts, return_inverse=True)
        marked = set(self.held_out) if name == "experiment" else set()
        known = [each for each in names if each != NOT_KNOWN]
        colors = dict(zip(known, map(_hex, class_colors(known)), strict=True)) | {NOT_KNOWN: "#b8bdc7"}
        counts = np.bincount(codes, minlength=len(names))
        column["classes"] = [
            {"name": str(each), "color": colors[each], "count": f"{count:,}", "held_out": each in marked}
            for each, count in zip(names, counts.tolist(), strict=True)
        ]
        return column | {"values": pack(codes)}


_BODY = """<div class="controls">
<label>map <select id="map-view"></select></label>
<label>colour <select id="map-color"></select></label>
<label>tracks <select id="map-tracks"></select></label>
</div>
<div class="map">
<div id="map-frame"><div id="map"></div><canvas id="map-overlay"></canvas><div id="map-card" hidden></div></div>
<div id="map-legend"></div>
</div>
<p class="note" id="map-words"></p>
<p class="note">Scroll to zoom, drag to move, double-click to see everything again. Point at a cell to see it and its
track from the white end on, ancestors included; click to keep it.</p>"""


def color_columns(cells: pd.DataFrame, first: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Choose the columns that may colour a map.

    Parameters
    ----------
    cells : DataFrame
    first : sequence of str
        Those at the beginning.

    Returns
    -------
    columns : list of str
        Classes of at most 40 names, and numbers that are no identities.
    notes : list of str
        Which columns were left out and why.
    """
    columns, crowded = [], []
    for name in dict.fromkeys([*(name for name in first if name in cells), *cells.columns]):
        if name in _IDENTITIES:
            continue
        if _is_number(cells[name]):
            columns.append(name)
            continue
        n_classes = len(np.unique(_texts(cells[name])))
        if n_classes > MOST_CLASSES:
            crowded.append(f"{name} ({n_classes:,} classes)")
        elif n_classes > 1 or name in first:
            columns.append(name)
    return columns, [f"colours that the map does not offer: {', '.join(crowded)}"] if crowded else []


def _is_number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _texts(values: pd.Series) -> np.ndarray:
    missing = is_missing(values)
    return np.where(missing, NOT_KNOWN, values.astype(object).map(str).to_numpy(dtype=object)).astype(str)


def _tracks(cells: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the track of each cell, and the parent of each track (-1: none that is drawn)."""
    place = cells["experiment"].astype(str) + "\n" + cells["fov_name"].astype(str) + "\n"
    keys = (place + cells["track_id"].astype(str)).to_numpy().astype(str)
    names, track = np.unique(keys, return_inverse=True)
    parents = np.full(len(names), -1)
    if "parent_track_id" in cells:
        first = np.unique(track, return_index=True)[1]
        own = cells.iloc[first]
        wanted = (place.iloc[first] + own["parent_track_id"].astype(str)).to_numpy().astype(str)
        found = np.searchsorted(names, wanted).clip(max=len(names) - 1)
        parents = np.where((names[found] == wanted) & (found != np.arange(len(names))), found, -1)
    return track, parents


def _drawn(track: np.ndarray) -> np.ndarray:
    """Choose the tracks that are drawn at the beginning: long ones, spread evenly over all that are long."""
    lengths = np.bincount(track)
    long = np.flatnonzero(lengths >= max(2, np.quantile(lengths, 0.75)))
    places = np.linspace(0, len(long) - 1, min(_N_DRAWN_TRACKS, len(long)))
    return long[np.unique(places.astype(int))]


def _gradient() -> list[str]:
    colormap = require("matplotlib", extra="plot", package="viscy-utils").colormaps["viridis"]
    return [_hex(colormap(share)) for share in np.linspace(0, 1, 24)]


def _hex(color: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in color[:3])
