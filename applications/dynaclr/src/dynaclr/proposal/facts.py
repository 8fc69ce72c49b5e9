"""What stores and tracking tables say that a config depends on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from viscy_data.errors import InputError, MissingInputError
from viscy_data.stores import FovInfo, read_attributes, read_fovs
from viscy_data.tracks import count_outside, describe_outside, find_tracks, read_tracks

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PlateFacts", "look_at"]

_MINUTES = {"millisecond": 1 / 60_000, "second": 1 / 60, "minute": 1.0, "hour": 60.0, "day": 1440.0}
_TABLES = 24  # enough to know how cells are spaced and how long tracks are
_FRAMES = 12  # per table
_MOST_NAMED = 4


@dataclass(frozen=True)
class PlateFacts:
    """One store with its tracks.

    Parameters
    ----------
    name : str
        What to call the experiment.
    store : str
        The plate, image or pattern of images: a path or URL.
    tracks : Path
        The root of its tracking tables.
    channel_names : tuple of str
        In the order of the store.
    n_frames, depth, height, width : int
        Of the smallest FOV along each axis.
    interval_minutes : float, optional
        From one frame to the next, if the store says so.
    wells : tuple of str
        Those with a tracking table.
    n_fovs : int
        FOVs with a tracking table.
    spacing_px : float
        Median distance of a cell to the nearest other one in its frame; NaN when cells are alone.
    track_frames : float
        Median length of a track.
    cells_per_table : float
        Mean number of observations of a table.
    pixel_size : float, optional
        Side of a pixel in the unit of the store, if it says so: 1 is what nobody set.
    remarks : tuple of str
        What looks wrong in the tables: micrometres, times for frames, x and y swapped.
    """

    name: str
    store: str
    tracks: Path
    channel_names: tuple[str, ...]
    n_frames: int
    depth: int
    height: int
    width: int
    interval_minutes: float | None
    wells: tuple[str, ...]
    n_fovs: int
    spacing_px: float
    track_frames: float
    cells_per_table: float
    pixel_size: float | None = None
    remarks: tuple[str, ...] = ()


def look_at(store: str | Path, tracks: Path | None, name: str | None = None) -> PlateFacts:
    """Look at a plate and its tracking tables.

    Parameters
    ----------
    store : str or Path
        HCS OME-Zarr plate, single image, or pattern of images: a path or URL.
    tracks : Path, optional
        Root of the tracking tables; by default a folder ``tracks`` or ``tracks.zarr`` beside the store.
    name : str, optional
        What to call the experiment; by default after the store, or its folder when the store has a general name.

    Raises
    ------
    MissingInputError, InputError
        If there is no plate or no table.
    """
    store = str(store)
    fovs = read_fovs(store)
    tracks = _tracks_beside(store) if tracks is None else tracks
    with_table = [(fov, path) for fov in fovs if (path := find_tracks(tracks, fov.name)) is not None]
    if not with_table:
        raise MissingInputError(
            str(tracks),
            field="--tracks",
            found=f"no tracking table of any of the {len(fovs)} FOVs of {store}",
            expected=f"one CSV per FOV, such as {tracks}/{fovs[0].name}/tracks.csv" if fovs else "one CSV per FOV",
        )
    shapes = np.array([fov.shape for fov, _ in with_table])
    picked = with_table[:: max(1, len(with_table) // _TABLES)][:_TABLES]
    tables = [(fov, read_tracks(path)) for fov, path in picked]
    if not any(len(table) for _, table in tables):
        raise InputError(str(picked[0][1].parent), found="tables without a row", expected="tracked cells")
    spacing, lengths, counts = _cells([table for _, table in tables])
    n_frames, _, depth, height, width = shapes.min(axis=0).tolist()
    return PlateFacts(
        name=name or _name_of(store),
        store=store,
        tracks=tracks,
        channel_names=with_table[0][0].channel_names,
        n_frames=n_frames,
        depth=depth,
        height=height,
        width=width,
        interval_minutes=_interval_of(with_table[0][0]),
        wells=tuple(dict.fromkeys(fov.well for fov, _ in with_table)),
        n_fovs=len(with_table),
        spacing_px=spacing,
        track_frames=lengths,
        cells_per_table=counts,
        remarks=(
            *_without_cells(fovs, [fov for fov, _ in with_table], tables),
            *describe_outside([count_outside(table, fov) for fov, table in tables]),
        ),
        pixel_size=None if (side := with_table[0][0].scale[-1]) == 1 else side,
    )


def _without_cells(
    fovs: Sequence[FovInfo], with_table: Sequence[FovInfo], tables: Sequence[tuple[FovInfo, pd.DataFrame]]
) -> list[str]:
    """Say which FOVs have nothing to train on."""
    tracked = {fov.name for fov in with_table}
    absent = [fov.name for fov in fovs if fov.name not in tracked]
    empty = [fov.name for fov, table in tables if not len(table)]
    said = [f"{len(absent)} of {len(fovs)} FOVs have none and are left out, such as {absent[0]}"] if absent else []
    return said + ([f"no cell is in {', '.join(empty[:_MOST_NAMED])}"] if empty else [])


def _tracks_beside(store: str) -> Path:
    folder = Path(store).parent
    if "://" not in store:
        for candidate in (folder / "tracks", folder / "tracks.zarr"):
            if candidate.is_dir():
                return candidate
    found = "no folder tracks beside the store"
    raise MissingInputError(str(folder), field="--tracks", found=found, expected="--tracks DIR")


def _name_of(store: str) -> str:
    """Name the experiment after its store, or after the folder of a store with a name that says nothing."""
    parts = (store if "://" in store else str(Path(store).absolute())).rstrip("/").split("/")
    stem = re.sub(r"(\.ome)?\.zarr$", "", parts[-1])
    general = stem.lower() in ("images", "image", "plate", "data", "raw", "store", "") or set("*?[") & set(stem)
    return (parts[-2] if general and len(parts) > 1 else stem) or "experiment"


def _interval_of(fov: FovInfo) -> float | None:
    """Return the frame interval in minutes, where the metadata give a number and a unit; 1 is what nobody set."""
    if fov.scale[0] == 1:
        return None
    attributes = read_attributes(*fov.key)
    ome = attributes.get("ome", attributes)
    for image in ome.get("multiscales") or []:
        for axis in image.get("axes") or []:
            if isinstance(axis, dict) and axis.get("type") == "time" and axis.get("unit") in _MINUTES:
                return fov.scale[0] * _MINUTES[axis["unit"]]
    return None


def _cells(tables: Sequence[pd.DataFrame]) -> tuple[float, float, float]:
    """Measure spacing, length of tracks and observations per table."""
    from scipy.spatial import cKDTree

    distances, lengths, counts = [], [], []
    for table in tables:
        counts.append(len(table))
        if not len(table):
            continue
        frames, number = np.unique(table["t"].to_numpy(), return_inverse=True)
        places = table[["y", "x"]].to_numpy(np.float64)
        for frame in range(0, len(frames), max(1, len(frames) // _FRAMES)):
            own = places[number == frame]
            if len(own) > 1:
                distances.append(cKDTree(own).query(own, k=2)[0][:, 1])
        lengths.append(np.unique(table["track_id"].to_numpy(), return_counts=True)[1])
    spacing = float(np.median(np.concatenate(distances))) if distances else float("nan")
    return spacing, float(np.median(np.concatenate(lengths))), float(np.mean(counts))
