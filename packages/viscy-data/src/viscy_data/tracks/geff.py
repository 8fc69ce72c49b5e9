"""Tracks as GEFF, the exchange format of trackers: a Zarr group with a graph of cells, read and written by its library.

GEFF leaves axes and units open. Here they have to be there: without them nothing says which number is y, and whether it
counts pixels or micrometres.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.errors import InputError, raise_all, reading_file
from viscy_data.files import replacing
from viscy_data.optional import require
from viscy_data.stores import FovInfo
from viscy_data.tracks.graph import GraphError, links_of_tracks, tracks_of_graph
from viscy_data.tracks.imported import ImportedTracks
from viscy_data.tracks.units import steps

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_geff", "write_geff"]

_KNOWN = ("track_id", "t", "y", "x", "z", "id", "parent_track_id", "parent_id")
_FIX = "write it with axes and units: geff.GeffMetadata(axes=[{name: y, type: space, unit: pixel}, ...])"
_WHOLE = 1e-3  # frames: times in hours, divided by an interval, are whole numbers to rounding


def read_geff(path: Path, fov: FovInfo | None = None) -> ImportedTracks:
    """Read a GEFF group.

    Parameters
    ----------
    path : Path
        The Zarr group whose attributes have ``geff``.
    fov : FovInfo, optional
        The image; its scale converts positions and times in physical units.

    Returns
    -------
    ImportedTracks
        Tracks that the file names (``track_node_props``, or a property ``track_id``) keep their numbers. Properties of
        one number or text per node become columns; others are left out and counted.

    Raises
    ------
    InputError
        Naming what is missing or wrong: the structure, axes t, y and x, their units, a pixel size; merges.
    """
    where = str(path)
    with reading_file(where, "a GEFF group as its specification describes it"):
        graph = require("geff.core_io", extra="geff").read_to_memory(path)
    units = _units(where, graph["metadata"].axes)
    names = {key: axis.name for key, axis in units.items()}
    divisors = steps(where, fov, {key: axis.unit for key, axis in units.items()})
    props = graph["node_props"]
    place = {key: np.asarray(props[name]["values"], np.float64) / divisors[key] for key, name in names.items()}
    node = np.asarray(graph["node_ids"]).astype(np.int64)
    t = _frames(where, node, place.pop("t"))
    named = (graph["metadata"].track_node_props or {}).get("tracklet", "track_id")
    own = props.get(named)
    own_track = own["values"] if own and own["missing"] is None and own["values"].dtype.kind in "iu" else None
    try:
        track, parent = tracks_of_graph(node, t, np.asarray(graph["edge_ids"]).astype(np.int64), own_track)
    except GraphError as err:
        raise InputError(where, found=str(err), expected="every cell linked to at most one earlier cell") from err
    columns: dict[str, Any] = {"track_id": track, "t": t}
    columns |= {key: place[key].astype(np.float32) for key in ("z", "y", "x") if key in place}
    columns |= {"id": node, "parent_track_id": parent}
    kept, notes = _others(props, {*names.values(), named, *columns})
    if own is not None and (own_track is None or not np.array_equal(track, own_track)):
        notes.append(f"tracks are numbered anew: {named} does not agree with the links")
    return ImportedTracks(require("pandas", extra="triplet").DataFrame(columns | kept), tuple(notes))


def write_geff(
    table: pd.DataFrame, path: str | Path, fov: FovInfo | None = None, *, overwrite: bool = False
) -> tuple[str, ...]:
    """Write a tracking table as GEFF, with axes in frames and pixels.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`viscy_data.read_tracks` gives it. Nodes are numbered by ``id`` if that is unique.
    path : str or Path
        The Zarr group; appears in one step.
    fov : FovInfo, optional
        The image, whose scale is recorded beside the axes.
    overwrite : bool, default False
        Whether a folder at ``path`` is replaced.

    Returns
    -------
    tuple of str
        What GEFF cannot say, counted.

    Raises
    ------
    FileExistsError
        If there is something and ``overwrite`` is False.
    """
    core, spec = require("geff.core_io", extra="geff"), require("geff_spec", extra="geff")
    parent = table["parent_track_id"] if "parent_track_id" in table else np.full(len(table), -1)
    track, t = (table[name].to_numpy(np.int64) for name in ("track_id", "t"))
    links, unlinked = links_of_tracks(track, t, np.asarray(parent, np.int64))
    node = _node_ids(table)
    axes = [_axis(spec, name, fov) for name in ("t", "z", "y", "x") if name in table]
    others = [name for name in table if name not in _KNOWN and table[name].dtype.kind in "iufb"]
    props = {name: {"values": table[name].to_numpy(), "missing": None} for name in others}
    props |= {axis.name: {"values": table[axis.name].to_numpy(), "missing": None} for axis in axes}
    props["track_id"] = {"values": track, "missing": None}
    metadata = spec.GeffMetadata(directed=True, axes=axes, node_props_metadata={}, edge_props_metadata={})
    with replacing(path, overwrite, remedy="pass overwrite=True to replace it") as temporary:
        core.write_arrays(temporary, node, props, node[links], {}, metadata)
    left_out = [name for name in table if name not in (*_KNOWN, *others)]
    notes = [f"columns that are no numbers are left out: {', '.join(left_out)}"] if left_out else []
    if len(unlinked):
        notes.append(f"{len(unlinked)} tracks have a parent that is not there before them, and are written without one")
    return tuple(notes)


def _units(where: str, axes: list | None) -> dict[str, Any]:
    """Return the axes by the letter that they have here."""
    by_letter = {_letter(axis): axis for axis in axes or []}
    shown = ", ".join(axis.name for axis in axes or []) or "no axes"
    errors = [
        InputError(where, field=f"axis {letter}", found=shown, expected="axes t, y and x (z if there is one)", fix=_FIX)
        for letter in "tyx"
        if letter not in by_letter
    ]
    errors += [
        InputError(
            where,
            field=f"unit of axis {axis.name}",
            found="nothing",
            expected="frame, second ..." if letter == "t" else "pixel, micrometer ...",
            fix=_FIX,
        )
        for letter, axis in by_letter.items()
        if letter in "tzyx" and not axis.unit
    ]
    raise_all(errors)
    return {letter: axis for letter, axis in by_letter.items() if letter in "tzyx"}


def _letter(axis: Any) -> str:
    return "t" if axis.type == "time" or axis.name.lower() in ("t", "time", "frame") else axis.name.lower()


def _frames(where: str, node: np.ndarray, t: np.ndarray) -> np.ndarray:
    whole = np.round(t)
    if (bad := ~(np.abs(t - whole) < _WHOLE) | (whole < 0)).any():
        found = f"{t[bad][0]:g} of node {node[bad][0]}, and {int(bad.sum()) - 1} more"
        raise InputError(where, field="t", found=found, expected="whole frames, 0 or more")
    return whole.astype(np.int64)


def _others(props: dict[str, Any], known: set[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the further properties that are one value per node, and what is said of the others."""
    kept, left_out = {}, []
    for name in sorted(set(props) - known):
        values, missing = props[name]["values"], props[name]["missing"]
        if values.ndim != 1 or values.dtype.kind not in "iufbU" or (missing is not None and values.dtype.kind == "U"):
            left_out.append(name)
        else:
            kept[name] = values if missing is None else np.where(missing, np.nan, values.astype(np.float64))
    return kept, [f"{len(left_out)} properties are left out: {', '.join(left_out)}"] if left_out else []


def _node_ids(table: pd.DataFrame) -> np.ndarray:
    if "id" in table and table["id"].is_unique and (table["id"] >= 0).all():
        return table["id"].to_numpy().astype(np.uint64)
    return np.arange(len(table), dtype=np.uint64)


def _axis(spec: Any, name: str, fov: FovInfo | None) -> Any:
    if name == "t":
        return spec.Axis(name="t", type="time", unit="frame")
    scale = {"scale": fov.scale["tczyx".index(name)], "scaled_unit": "micrometer"} if fov is not None else {}
    return spec.Axis(name=name, type="space", unit="pixel", **scale)
