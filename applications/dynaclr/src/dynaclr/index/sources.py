"""Which tracking table belongs to which FOV of which experiment."""

from __future__ import annotations

import warnings
from collections.abc import Sequence, Set
from pathlib import Path
from typing import NamedTuple

from dynaclr.experiment import ExperimentRegistry
from viscy_data.errors import InputError, InputErrors, MissingInputError, raise_all
from viscy_data.files import near_files
from viscy_data.select import select_fovs
from viscy_data.stores import FovInfo
from viscy_data.tracks import find_tracks

__all__ = ["TrackSource", "TrackSources", "find_sources", "listed"]

_SHOWN = 10


class TrackSource(NamedTuple):
    """The tracking table of one FOV."""

    experiment: int
    fov: FovInfo
    path: Path


class TrackSources(NamedTuple):
    """Tracking tables of the chosen FOVs, and (experiment, FOV) of those that have none."""

    found: list[TrackSource]
    missing: list[tuple[str, str]]


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
    wanted = {fov.key for fov in select_fovs(all_fovs, include_wells, exclude_fovs, left_out=registry.left_out)}
    found, missing, errors = [], [], []
    for number, config in enumerate(registry.experiments):
        chosen = [fov for fov in registry.fovs[config.name] if fov.key in wanted]
        if not chosen:
            warnings.warn(f"include_wells and exclude_fovs leave no FOV of experiment {config.name!r}", stacklevel=3)
        try:
            paths = _find_tables(registry.where(config.name), config.tracks_path, chosen)
        except InputError as err:
            errors += err.errors if isinstance(err, InputErrors) else [err]
            continue
        found += [TrackSource(number, fov, path) for fov, path in zip(chosen, paths, strict=True) if path is not None]
        missing += [(config.name, fov.name) for fov, path in zip(chosen, paths, strict=True) if path is None]
        known = {fov.name for fov in registry.fovs[config.name]} | {key.name for key in registry.left_out}
        _warn_of_strangers(config.name, Path(config.tracks_path), known)
    raise_all(errors)
    if not found:
        raise InputError(
            "include_wells, exclude_fovs", found="no FOV left", expected="at least one", fix="loosen the filters"
        )
    if missing:
        warnings.warn(
            f"{len(missing)} of {len(missing) + len(found)} FOVs have no tracking table and are left out: "
            f"{listed([f'{name}: {fov}' for name, fov in missing])}",
            stacklevel=3,
        )
    return TrackSources(found, missing)


def _find_tables(where: str, tracks_path: str, fovs: Sequence[FovInfo]) -> list[Path | None]:
    if not Path(tracks_path).is_dir():
        raise MissingInputError(
            where,
            field="tracks_path",
            found=f"{'a file' if Path(tracks_path).exists() else 'no folder'} {tracks_path}",
            expected="the folder of the tracking tables",
            fix=near_files(tracks_path, otherwise="check the path"),
        )
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


def _warn_of_strangers(experiment: str, tracks_path: Path, known: Set[str]) -> None:
    folders = {"/".join(path.parts[-3:]) for path in tracks_path.glob("*/*/*")}
    unknown = sorted(folders - known)
    if strangers := [name for name in unknown if any((tracks_path / name).glob("*.[ct]sv"))]:
        warnings.warn(
            f"experiment {experiment!r}: tracking tables of {len(strangers)} FOVs that the store does not have are "
            f"ignored: {listed(strangers)}",
            stacklevel=4,
        )


def listed(names: Sequence[object]) -> str:
    """Join the first names and count the others."""
    shown = ", ".join(str(name) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
