"""From the tracking tables of experiments to one table of tracks: read in parallel, checked by FOV."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import numpy as np

from dynaclr.experiment import ExperimentRegistry
from dynaclr.index.left_out import LeftOut, LeftOutOf
from dynaclr.index.sources import TrackSources, listed
from dynaclr.index.tracks_table import ID_COLUMNS, FovTracks, TracksTable
from dynaclr.lineage import LineageCycleError
from viscy_data.errors import InputError, raise_all
from viscy_data.pieces import map_pieces
from viscy_data.stores import FovInfo
from viscy_data.tracks import count_outside, describe_outside, read_tracks

__all__ = ["read_table"]

_logger = logging.getLogger(__name__)
_SHOWN = 7  # and how many more there are; a message shows eight
_Task = tuple[str, FovInfo]  # tracking table, and its FOV


def read_table(
    registry: ExperimentRegistry, sources: TrackSources, workers: int | None = None, dask_address: str | None = None
) -> TracksTable:
    """Read, check and join tracking tables.

    Parameters
    ----------
    registry : ExperimentRegistry
        Experiments that the sources belong to.
    sources : TrackSources
        Tables to read.
    workers, dask_address
        Who reads the tables, see `workers` and `dask` of :func:`viscy_data.pieces.map_pieces`.

    Raises
    ------
    InputError
        With the problems of all tables together.
    ImportError
        If a Dask address is given and Dask is not installed.
    """
    from dynaclr.index.joined_columns import join_columns  # pandas comes with it

    tasks = [(str(source.path), source.fov) for source in sources.found]
    results = list(map_pieces(_read_or_error, tasks, workers=workers, dask=dask_address))
    failed = [result for result in results if isinstance(result, InputError)]
    errors = [err for failure in failed for err in getattr(failure, "errors", (failure,))]
    if len(errors) > _SHOWN:
        more = InputError("tracking tables", found=f"{len(errors) - _SHOWN} more problems of this kind")
        errors = [*errors[:_SHOWN], more]
    raise_all(errors)
    table = TracksTable.join(
        registry.names,
        [source.fov for source in sources.found],
        [source.experiment for source in sources.found],
        results,
        join_columns(results, [path for path, _ in tasks]),
        _left_out(registry.names, results, sources),
    )
    _check_cycles(table, sources)
    _report(table, results, sources)
    if not len(table):
        causes = [f"{name}: {remark}" for name, own in table.left_out.by_experiment.items() for remark in own.remarks]
        raise InputError(
            "tracking tables",
            found="; ".join([f"no cell inside the images of {len(sources.found)} FOVs", *causes]),
            expected="at least one",
            fix="check that tracks and stores belong together, and the units of y and x (pixels)",
        )
    return table


def _check_cycles(table: TracksTable, sources: TrackSources) -> None:
    try:
        _ = table.forest
    except LineageCycleError as err:
        fovs = table.track_fov[err.tracks]
        raise_all(
            InputError(
                str(sources.found[fov].path),
                field="parent_track_id",
                found=f"tracks {listed(table.track_id[err.tracks[fovs == fov]])} of FOV {table.fovs[fov].name} are "
                "their own ancestors",
                expected="parents without a cycle",
                fix="correct the parents of these tracks",
            )
            for fov in np.unique(fovs)
        )


def read_fov(path: str, fov: FovInfo) -> FovTracks:
    """Read the tracking table of one FOV.

    Parameters
    ----------
    path : str
        The table.
    fov : FovInfo
        Its FOV. Rows outside the image or after its last frame are dropped and counted; their tracks stay in the
        lineage.

    Raises
    ------
    InputError
        If the table cannot be used, a parent that changes along a track among the reasons.
    """
    notes: list[str] = []
    table = read_tracks(path, notes=notes)
    columns = {str(name): column.to_numpy() for name, column in table.items()}
    track_id, track = np.unique(columns["track_id"], return_inverse=True)
    parent, n_orphans = _parents(path, columns.get("parent_track_id"), track_id, track)
    t, y, x = (columns[name] for name in ("t", "y", "x"))
    kept = (0 <= y) & (y < fov.shape[3]) & (0 <= x) & (x < fov.shape[4]) & (t < fov.shape[0])
    begin = np.full(len(track_id), np.iinfo(np.int64).max)
    np.minimum.at(begin, track, t)
    chosen = slice(None) if kept.all() else kept
    return FovTracks(
        columns={name: _compact(name, column[chosen]) for name, column in columns.items()},
        track=track[kept].astype(np.int32),
        track_id=track_id,
        parent=parent,
        outside=count_outside(columns, fov),
        n_early=int(((parent >= 0) & (begin < begin[parent])).sum()),
        n_orphans=n_orphans,
        notes=tuple(notes),
    )


def _parents(path: str, named: np.ndarray | None, track_id: np.ndarray, track: np.ndarray) -> tuple[np.ndarray, int]:
    """Find the number of each track's parent, -1 for none; and count tracks whose parent is not in the table."""
    parent = np.full(len(track_id), -1, dtype=np.int32)
    if named is None or not len(named):
        return parent, 0
    first = np.full(len(track_id), -1)
    first[track[::-1]] = np.arange(len(track))[::-1]
    own = named[first]  # as the first row of each track names it
    changed = np.flatnonzero(named != own[track])
    if len(changed):
        row = changed[0]
        parents = sorted((int(own[track[row]]), int(named[row])))
        raise InputError(
            path,
            field="parent_track_id",
            found=f"track {track_id[track[row]]} with the parents {' and '.join(map(str, parents))} (-1 is none)",
            expected="one parent per track, the same in all of its rows",
        )
    place = np.minimum(np.searchsorted(track_id, own), len(track_id) - 1)
    # -1 means "no parent", even where a track carries that id.
    known = (own >= 0) & (track_id[place] == own)
    parent[known] = place[known]
    return parent, int(((own >= 0) & ~known).sum())


def _compact(name: str, column: np.ndarray) -> np.ndarray:
    """Store whole numbers as int32 where they fit, and ids, with which nobody calculates, as int16."""
    if column.dtype != np.int64:
        return column
    low, high = (int(column.min()), int(column.max())) if len(column) else (0, 0)
    for narrow in (np.int16, np.int32) if name in ID_COLUMNS else (np.int32,):
        if np.iinfo(narrow).min <= low and high <= np.iinfo(narrow).max:
            return column.astype(narrow)
    return column


def _read_or_error(task: _Task) -> FovTracks | InputError:
    try:
        return read_fov(*task)
    except InputError as err:
        return err


def _left_out(names: Sequence[str], parts: Sequence[FovTracks], sources: TrackSources) -> LeftOut:
    by_experiment = {}
    for number, name in enumerate(names):
        pairs = zip(parts, sources.found, strict=True)
        own = [part for part, source in pairs if source.experiment == number]
        n_orphans = sum(part.n_orphans for part in own)
        remarks = describe_outside([part.outside for part in own])
        if n_orphans:
            remarks.append(f"{n_orphans} tracks name a parent that is not in their table, and count as roots")
        by_experiment[name] = LeftOutOf(
            fovs=tuple(fov for experiment, fov in sources.missing if experiment == name),
            n_outside=sum(part.outside.n_outside for part in own),
            n_beyond=sum(part.outside.n_beyond for part in own),
            n_orphans=n_orphans,
            remarks=tuple(remarks),
        )
    return LeftOut(by_experiment)


def _report(table: TracksTable, parts: Sequence[FovTracks], sources: TrackSources) -> None:
    """Say what was left out, what looks wrong, and what had to be assumed."""
    left_out = table.left_out
    if left_out.n_beyond:
        total = len(table) + left_out.n_outside + left_out.n_beyond
        warnings.warn(
            f"{left_out.n_beyond} of {total} observations lie after the last frame of their FOV and are left out: are "
            "the tracks those of a longer movie?",
            stacklevel=4,
        )
    if n_early := sum(part.n_early for part in parts):
        warnings.warn(f"{n_early} tracks begin before their parent track; check parent_track_id", stacklevel=4)
    for name, own in left_out.by_experiment.items():
        for remark in own.remarks:
            _logger.warning("experiment %r: %s", name, remark)
    tables_of: dict[str, list[str]] = {}
    for part, source in zip(parts, sources.found, strict=True):
        for note in part.notes:
            tables_of.setdefault(note, []).append(str(source.path))
    for note, paths in tables_of.items():
        _logger.warning("%s (%d tracking tables, the first %s)", note, len(paths), paths[0])
