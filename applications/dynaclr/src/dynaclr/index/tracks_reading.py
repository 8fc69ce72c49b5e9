"""From the tracking tables of experiments to one table of tracks: which files, read in parallel, checked by FOV."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dynaclr.experiment import ExperimentRegistry
from dynaclr.index.tracks_table import FovTracks, TracksTable
from dynaclr.lineage import LineageCycleError
from viscy_data.errors import InputError, InputErrors, MissingInputError, raise_all
from viscy_data.optional import require
from viscy_data.select import select_fovs
from viscy_data.stores import FovInfo
from viscy_data.tracks import find_tracks, read_tracks

__all__ = ["TrackSource", "TrackSources", "find_sources", "read_table"]

_logger = logging.getLogger(__name__)
_SHOWN = 10
_Task = tuple[str, tuple[int, ...]]  # tracking table, shape of its FOV


class TrackSource(NamedTuple):
    """The tracking table of one FOV."""

    experiment: int
    fov: FovInfo
    path: Path


class TrackSources(NamedTuple):
    """Tracking tables of the chosen FOVs, and ``experiment: FOV`` of those that have none."""

    found: list[TrackSource]
    missing: list[str]


def find_sources(
    registry: ExperimentRegistry, include_wells: Sequence[str] | None = None, exclude_fovs: Sequence[str] | None = None
) -> TrackSources:
    """Find the tracking tables of the FOVs that are asked for.

    Parameters
    ----------
    registry : ExperimentRegistry
        Experiments with their FOVs.
    include_wells : sequence of str, optional
        Take only these wells, of every experiment that has them.
    exclude_fovs : sequence of str, optional
        Leave out the FOVs of these names, of every experiment that has them.

    Raises
    ------
    InputError
        With all problems together: names that match nothing, no folder of tracks, several tables for a FOV, an
        experiment without any table, nothing left.
    """
    all_fovs = [fov for fovs in registry.fovs.values() for fov in fovs]
    wanted = {fov.key for fov in select_fovs(all_fovs, include_wells, exclude_fovs)}
    found, missing, errors = [], [], []
    for number, config in enumerate(registry.experiments):
        chosen = [fov for fov in registry.fovs[config.name] if fov.key in wanted]
        if not chosen:
            warnings.warn(f"include_wells and exclude_fovs leave no FOV of experiment {config.name!r}", stacklevel=3)
        try:
            paths = _find_tables(config.name, config.tracks_path, chosen)
        except InputError as err:
            errors += err.errors if isinstance(err, InputErrors) else [err]
            continue
        found += [TrackSource(number, fov, path) for fov, path in zip(chosen, paths, strict=True) if path is not None]
        missing += [f"{config.name}: {fov.name}" for fov, path in zip(chosen, paths, strict=True) if path is None]
        _warn_of_strangers(config.name, Path(config.tracks_path), registry.fovs[config.name])
    raise_all(errors)
    if not found:
        raise InputError(
            "include_wells, exclude_fovs", found="no FOV left", expected="at least one", fix="loosen the filters"
        )
    if missing:
        warnings.warn(
            f"{len(missing)} of {len(missing) + len(found)} FOVs have no tracking table and are left out: "
            f"{_listed(missing)}",
            stacklevel=3,
        )
    return TrackSources(found, missing)


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
    workers : int, optional
        Threads that read tables; by default one per CPU.
    dask_address : str, optional
        Scheduler of a running Dask cluster that reads the tables instead.

    Raises
    ------
    InputError
        With the problems of all tables together.
    ImportError
        If a Dask address is given and Dask is not installed.
    """
    tasks = [(str(source.path), source.fov.shape) for source in sources.found]
    results = _map_on_dask(tasks, dask_address) if dask_address else _map(tasks, workers)
    failed = [result for result in results if isinstance(result, InputError)]
    errors = [err for failure in failed for err in getattr(failure, "errors", (failure,))]
    if len(errors) > _SHOWN:
        more = InputError("tracking tables", found=f"{len(errors) - _SHOWN} more problems of this kind")
        errors = [*errors[:_SHOWN], more]
    raise_all(errors)
    table = TracksTable.join(
        [config.name for config in registry.experiments],
        [source.fov for source in sources.found],
        [source.experiment for source in sources.found],
        results,
        sources.missing,
    )
    _check_cycles(table, sources)
    _warn_of_dropped(table, sum(part.n_early for part in results))
    if not len(table):
        raise InputError(
            "tracking tables",
            found=f"no cell inside the images of {len(sources.found)} FOVs",
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
                found=f"tracks {_listed(table.track_id[err.tracks[fovs == fov]])} of FOV {table.fovs[fov].name} are "
                "their own ancestors",
                expected="parents without a cycle",
                fix="correct the parents of these tracks",
            )
            for fov in np.unique(fovs)
        )


def read_fov(path: str, shape: Sequence[int]) -> FovTracks:
    """Read the tracking table of one FOV.

    Parameters
    ----------
    path : str
        The table.
    shape : sequence of int
        (T, C, Z, Y, X) of the FOV. Rows outside the image or after its last frame are dropped and counted; their tracks
        stay in the lineage.

    Raises
    ------
    InputError
        If the table cannot be used, two parents of one track among the reasons.
    """
    table = read_tracks(path)
    columns = {str(name): column.to_numpy() for name, column in table.items()}
    track_id, track = np.unique(columns["track_id"], return_inverse=True)
    parent = _parents(path, columns.get("parent_track_id"), track_id, track)
    t, y, x = (columns[name] for name in ("t", "y", "x"))
    inside = (0 <= y) & (y < shape[3]) & (0 <= x) & (x < shape[4])
    kept = inside & (t < shape[0])
    begin = np.full(len(track_id), np.iinfo(np.int64).max)
    np.minimum.at(begin, track, t)
    chosen = slice(None) if kept.all() else kept
    return FovTracks(
        columns={name: _compact(column[chosen]) for name, column in columns.items()},
        track=track[kept].astype(np.int32),
        track_id=track_id,
        parent=parent,
        n_outside=int((~inside).sum()),
        n_beyond=int((inside & ~kept).sum()),
        n_early=int(((parent >= 0) & (begin < begin[parent])).sum()),
    )


def _parents(path: str, named: np.ndarray | None, track_id: np.ndarray, track: np.ndarray) -> np.ndarray:
    """Find the number of each track's parent, -1 where none is named or the named one is not in the table."""
    parent = np.full(len(track_id), -1, dtype=np.int32)
    if named is None or not len(named):
        return parent
    place = np.minimum(np.searchsorted(track_id, named), len(track_id) - 1)
    # -1 means "no parent", even where a track carries that id.
    rows = np.flatnonzero((named >= 0) & (track_id[place] == named))
    parent[track[rows]] = place[rows]
    contradiction = rows[parent[track[rows]] != place[rows]]
    if len(contradiction):
        row = contradiction[0]
        raise InputError(
            path,
            field="parent_track_id",
            found=f"track {track_id[track[row]]} with the parents {named[row]} and {track_id[parent[track[row]]]}",
            expected="one parent per track",
        )
    return parent


def _compact(column: np.ndarray) -> np.ndarray:
    """Store whole numbers as int32 where they fit."""
    if column.dtype == np.int64 and (not len(column) or (column.max() < 2**31 and column.min() >= -(2**31))):
        return column.astype(np.int32)
    return column


def _read_or_error(task: _Task) -> FovTracks | InputError:
    try:
        return read_fov(*task)
    except InputError as err:
        return err


def _map(tasks: Sequence[_Task], workers: int | None) -> list[FovTracks | InputError]:
    with ThreadPoolExecutor(workers or os.cpu_count(), thread_name_prefix="read_tracks") as pool:
        return list(pool.map(_read_or_error, tasks))


def _map_on_dask(tasks: Sequence[_Task], address: str) -> list[FovTracks | InputError]:
    distributed = require("dask.distributed", extra="dask", package="dynaclr")
    with distributed.Client(address) as client:
        return client.gather(client.map(_read_or_error, tasks, pure=False))


def _find_tables(experiment: str, tracks_path: str, fovs: Sequence[FovInfo]) -> list[Path | None]:
    where = f"experiment {experiment!r}"
    if not Path(tracks_path).is_dir():
        raise MissingInputError(where, field="tracks_path", found=f"no folder {tracks_path}", fix="check the path")
    errors, paths = [], []
    for fov in fovs:
        try:
            paths.append(find_tracks(tracks_path, fov.name))
        except InputError as err:
            errors.append(err)
    raise_all(errors)
    if fovs and not any(paths):
        raise InputError(
            where,
            field="tracks_path",
            found=f"no tracking table in {tracks_path} for any of {len(fovs)} FOVs",
            expected=f"for example {Path(tracks_path) / fovs[0].name / 'tracks.csv'}",
            fix="give the folder that holds row/column/fov folders",
        )
    return paths


def _warn_of_strangers(experiment: str, tracks_path: Path, fovs: Sequence[FovInfo]) -> None:
    folders = {"/".join(path.parts[-3:]) for path in tracks_path.glob("*/*/*")}
    unknown = sorted(folders - {fov.name for fov in fovs})
    if strangers := [name for name in unknown if any((tracks_path / name).glob("*.csv"))]:
        warnings.warn(
            f"experiment {experiment!r}: tracking tables of {len(strangers)} FOVs that the store does not have are "
            f"ignored: {_listed(strangers)}",
            stacklevel=4,
        )


def _warn_of_dropped(table: TracksTable, n_early: int) -> None:
    left_out = table.left_out
    total = len(table) + left_out.n_outside + left_out.n_beyond
    if left_out.n_beyond:
        warnings.warn(
            f"{left_out.n_beyond} of {total} observations lie after the last frame of their FOV and are left out: are "
            "the tracks those of a longer movie?",
            stacklevel=4,
        )
    if n_early:
        warnings.warn(f"{n_early} tracks begin before their parent track; check parent_track_id", stacklevel=4)
    if left_out.n_outside:
        _logger.info("%d of %d observations lie outside the image and are left out", left_out.n_outside, total)


def _listed(names: Sequence[object]) -> str:
    shown = ", ".join(str(name) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
