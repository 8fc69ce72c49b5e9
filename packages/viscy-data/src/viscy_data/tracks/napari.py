"""Tracks as napari keeps them in a layer: an array (track, t, [z], y, x), and a graph from daughters to their mothers.

>>> data = [[1, 0, 4, 5], [1, 1, 4, 6], [2, 2, 3, 6], [3, 2, 5, 7]]
>>> tracks = from_napari(data, {2: [1], 3: [1]})
>>> tracks.table["parent_track_id"].tolist()
[-1, -1, 1, 1]
>>> to_napari(tracks.table)[1]
{2: [1], 3: [1]}
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike

from viscy_data.errors import InputError, raise_all
from viscy_data.files import replacing
from viscy_data.optional import require
from viscy_data.tracks.columns import check_unique
from viscy_data.tracks.imported import ImportedTracks

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["from_napari", "read_napari", "to_napari", "write_napari"]

_KNOWN = ("track_id", "t", "z", "y", "x", "parent_track_id", "parent_id")


def from_napari(
    data: ArrayLike,
    graph: Mapping[Any, Any] | None = None,
    properties: Mapping[str, ArrayLike] | None = None,
    *,
    where: str = "tracks of napari",
) -> ImportedTracks:
    """Make a tracking table of what a tracks layer holds.

    Parameters
    ----------
    data : array_like, shape (N, 4) or (N, 5)
        Track, frame, (z,) y and x in pixels, of each cell.
    graph : mapping, optional
        From a track to its parent, or to a sequence of one.
    properties : mapping of str to array_like, shape (N,), optional
        Further columns.
    where : str
        What messages call it.

    Returns
    -------
    ImportedTracks
        Where daughters begin with the last observation of their mother (as Trackastra's do, to draw a line), or begin
        together with the cell that divides, that observation is kept once and counted.

    Raises
    ------
    InputError
        For arrays of another form, positions that are not finite, frames that are not whole, parents that are not
        there, and merges.
    """
    values = np.asarray(data, np.float64)
    if values.ndim != 2 or values.shape[1] not in (4, 5):
        found = f"an array of shape {values.shape}"
        raise InputError(where, field="data", found=found, expected="(N, 4) or (N, 5): track, t, (z,) y, x")
    _check(where, values)
    track, t = values[:, :2].astype(np.int64).T
    parent_of = _parents(where, graph or {}, set(track.tolist()))
    parent = np.array([parent_of.get(own, -1) for own in track.tolist()], np.int64)
    track, parent, kept = _without_repeated(values, track, parent)
    columns: dict[str, Any] = {"track_id": track, "t": t}
    axes = "zyx"[5 - values.shape[1] :]
    columns |= {axis: values[:, 2 + place].astype(np.float32) for place, axis in enumerate(axes)}
    columns |= {"parent_track_id": parent} | {name: np.asarray(own) for name, own in (properties or {}).items()}
    table = require("pandas", extra="triplet").DataFrame(columns)[kept].reset_index(drop=True)
    check_unique(where, table["track_id"].to_numpy(), table["t"].to_numpy())
    n_repeated = int((~kept).sum())
    return ImportedTracks(table, (f"{n_repeated} observations of dividing cells are repeated",) if n_repeated else ())


def to_napari(table: pd.DataFrame) -> tuple[np.ndarray, dict[int, list[int]], dict[str, np.ndarray]]:
    """Make what a tracks layer of napari takes: ``viewer.add_tracks(data, graph=graph, properties=properties)``.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`viscy_data.read_tracks` gives it.

    Returns
    -------
    data : ndarray of float64, shape (N, 4) or (N, 5)
        Sorted by track and frame, as napari wants it.
    graph : dict of int to list of int
        From daughters to their mothers.
    properties : dict of str to ndarray
        The other columns.
    """
    table = table.sort_values(["track_id", "t"], kind="stable")
    data = table[[name for name in ("track_id", "t", "z", "y", "x") if name in table]].to_numpy(np.float64)
    graph = {}
    if "parent_track_id" in table:
        pairs = table.loc[table["parent_track_id"] >= 0, ["track_id", "parent_track_id"]].drop_duplicates()
        graph = {int(child): [int(parent)] for child, parent in pairs.to_numpy()}
    return data, graph, {name: table[name].to_numpy() for name in table if name not in _KNOWN}


def read_napari(path: Path) -> ImportedTracks:
    """Read the tracks of a napari layer from a file.

    Parameters
    ----------
    path : Path
        ``.npz`` with ``data``, ``graph`` as rows (daughter, mother), and further columns; or ``.npy`` with ``data``
        and, beside it, the graph as JSON under the same name (``.json``).

    Raises
    ------
    InputError
        As :func:`from_napari`, and for files that are none of these.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:  # numpy leaves open what is no archive
            loaded = np.load(raw, allow_pickle=False)
            is_archive = path.suffix.lower() == ".npz"
            arrays = {name: loaded[name] for name in loaded.files} if is_archive else {"data": loaded}
    except (ValueError, AttributeError, OSError, EOFError, MemoryError, RuntimeError, BadZipFile, zlib.error) as err:
        found = f"no arrays of numbers ({err})"
        raise InputError(str(path), found=found, expected="a file of numpy.save or numpy.savez") from err
    if "data" not in arrays:
        found = f"arrays {', '.join(arrays)}"
        raise InputError(str(path), field="data", found=found, expected="the array of a tracks layer")
    data, notes = arrays.pop("data"), ()
    if path.suffix.lower() == ".npz":
        graph = _graph_of_pairs(path, arrays.pop("graph", np.zeros((0, 2), np.int64)))
    else:
        graph, notes = _graph_beside(path)
    tracks = from_napari(data, graph, arrays, where=str(path))
    return ImportedTracks(tracks.table, tracks.notes + notes)


def write_napari(table: pd.DataFrame, path: str | Path, *, overwrite: bool = False) -> tuple[str, ...]:
    """Write a tracking table as ``.npz`` that :func:`read_napari` reads.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`viscy_data.read_tracks` gives it.
    path : str or Path
        Appears in one step.
    overwrite : bool, default False
        Whether a file at ``path`` is replaced.

    Returns
    -------
    tuple of str
        What is left out.

    Raises
    ------
    FileExistsError
        If there is a file and ``overwrite`` is False.
    """
    data, graph, properties = to_napari(table)
    pairs = np.array([(child, parent) for child, parents in graph.items() for parent in parents], np.int64)
    kept = {name: own for name, own in properties.items() if own.dtype.kind in "iufb" and name not in ("data", "graph")}
    with (
        replacing(path, overwrite, remedy="pass overwrite=True to replace it") as temporary,
        temporary.open("wb") as file,
    ):
        np.savez(file, data=data, graph=pairs.reshape(-1, 2), **kept)
    left_out = sorted(set(properties) - set(kept))
    return (f"columns that are no numbers are left out: {', '.join(left_out)}",) if left_out else ()


def _check(where: str, values: np.ndarray) -> None:
    """Refuse what cannot be a track, a frame or a place."""
    wrong = {
        "track": (values[:, 0], values[:, 0] != np.floor(values[:, 0]), "whole numbers"),
        "t": (values[:, 1], (values[:, 1] != np.floor(values[:, 1])) | (values[:, 1] < 0), "whole frames, 0 or more"),
        "z, y, x": (values, ~np.isfinite(values).all(axis=1), "finite numbers"),
    }
    raise_all(
        InputError(where, field=name, found=f"{own[bad.argmax()]} in row {bad.argmax()}", expected=expected)
        for name, (own, bad, expected) in wrong.items()
        if bad.any()
    )


def _parents(where: str, graph: Mapping[Any, Any], known: set[int]) -> dict[int, int]:
    """Return the parent of each track that has one; a number alone, as Trackastra gives it, is one."""
    listed = {
        int(child): [int(p) for p in (parents if isinstance(parents, Sequence | np.ndarray) else [parents])]
        for child, parents in graph.items()
    }
    merged = {child: parents for child, parents in listed.items() if len(parents) > 1}
    if merged:
        child, parents = next(iter(merged.items()))
        found = f"{len(merged)} tracks with several parents, such as {child} with {', '.join(map(str, parents))}"
        raise InputError(where, field="graph", found=found, expected="one parent: cells do not merge")
    strange = sorted({track for child, parents in listed.items() for track in (child, *parents)} - known)
    if strange:
        found = f"{len(strange)} tracks that the data do not have, such as {strange[0]}"
        raise InputError(where, field="graph", found=found, expected="tracks of the data")
    return {child: parents[0] for child, parents in listed.items() if parents}


def _without_repeated(
    values: np.ndarray, track: np.ndarray, parent: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find observations of a dividing cell that its daughters repeat.

    Returns
    -------
    track, parent : ndarray of int64, shape (N,)
        With a track of its own for a cell that divides in the frame in which it appears.
    kept : ndarray of bool, shape (N,)
    """
    kept, track, parent = np.ones(len(values), bool), track.copy(), parent.copy()
    if not len(values):
        return track, parent, kept
    ids, size = np.unique(track, return_counts=True)
    order = np.lexsort((values[:, 1], track))
    ends = np.cumsum(size) - 1
    starts, ends = order[ends - size + 1], order[ends]
    mother = np.minimum(np.searchsorted(ids, parent[starts]), len(ids) - 1)
    same = (values[starts, 1:] == values[ends[mother], 1:]).all(axis=1)
    kept[starts[(parent[starts] >= 0) & same & (size > 1)]] = False
    root = np.flatnonzero((parent[starts] < 0) & (size > 1))
    _, group, shared = np.unique(values[starts[root], 1:], axis=0, return_inverse=True, return_counts=True)
    for number in np.flatnonzero(shared > 1):
        own = starts[root[group.ravel() == number]]
        new = max(ids.max(), track.max()) + 1
        parent[np.isin(track, track[own])] = new
        kept[own[1:]] = False
        track[own[0]], parent[own[0]] = new, -1
    return track, parent, kept


def _graph_of_pairs(path: Path, pairs: np.ndarray) -> dict[int, list[int]]:
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        if pairs.size:
            found = f"{pairs.dtype} of shape {pairs.shape}"
            raise InputError(str(path), field="graph", found=found, expected="rows (daughter, mother)")
        return {}
    graph: dict[int, list[int]] = {}
    for child, parent in pairs.tolist():
        graph.setdefault(child, []).append(parent)
    return graph


def _graph_beside(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}, (f"there is no {beside.name} beside it: divisions are not known",)
    try:
        graph = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as err:
        raise InputError(str(beside), found=f"no JSON ({err})", expected="a graph {daughter: [mother]}") from err
    if not isinstance(graph, dict):
        raise InputError(str(beside), found=type(graph).__name__, expected="a graph {daughter: [mother]}")
    return graph, ()
