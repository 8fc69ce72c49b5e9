"""Large tracking tables without pictures: what index and sampler benchmarks need, in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from viscy_data.files import refuse_existing
from viscy_data.stores import PlateWriter
from viscy_data.synthetic.writer import tracks_csv, write_experiments_file
from viscy_data.tracks import write_tracks

__all__ = ["random_track_table", "write_track_tables"]

_CHANNELS = ("Phase3D", "GFP")
_CONDITION_WELLS = {"uninfected": ["A/1", "A/2", "A/3", "A/4"], "infected": ["B/1", "B/2", "B/3", "B/4"]}
_START_FRAMES = 28


def write_track_tables(
    n_observations: int,
    root: str | Path,
    *,
    seed: int = 0,
    n_experiments: int = 4,
    observations_per_fov: int = 2500,
    mean_track_frames: int = 20,
    yx_shape: tuple[int, int] = (64, 64),
    version: Literal["0.4", "0.5"] = "0.5",
    noise: bool = False,
) -> Path:
    """Write experiments whose tables are as large as wanted and whose images are empty, or noise.

    A quarter of the tracks divide; track lengths are geometric; positions are random walks inside the image; wells
    ``A/1`` to ``A/4`` are uninfected, ``B/1`` to ``B/4`` infected. Images hold the fill value only, so that a store is
    metadata and no pixels, unless there is to be noise.

    Parameters
    ----------
    n_observations : int
        Rows of all tables together, exactly.
    root : str or Path
        Folder for the experiments ``tracks_0``, ``tracks_1``, ...
    seed : int, default 0
        Everything written is a pure function of the arguments.
    n_experiments : int, default 4
        Over which the FOVs are spread evenly; they share FOV names.
    observations_per_fov : int, default 2500
        Rows of each table; the last one may have fewer.
    mean_track_frames : int, default 20
        Mean length of a track.
    yx_shape : tuple of int, default (64, 64)
        Size of the images in pixels.
    version : {"0.5", "0.4"}, default "0.5"
        OME-NGFF version.
    noise : bool, default False
        Images of photon noise, the same in all frames, a chunk per plane.

    Returns
    -------
    Path
        ``<root>/experiments.yml``.

    Raises
    ------
    ValueError
        If there are fewer observations than experiments.
    FileExistsError
        If the file exists.
    """
    n_fovs = max(n_experiments, -(-n_observations // observations_per_fov))
    if n_observations < n_fovs:
        raise ValueError(f"{n_observations} observations are too few for {n_experiments} experiments")
    root = Path(root)
    target = root / "experiments.yml"
    refuse_existing(target)
    root.mkdir(parents=True, exist_ok=True)
    sizes = np.full(n_fovs, n_observations // n_fovs) + (np.arange(n_fovs) < n_observations % n_fovs)
    entries = []
    for number, experiment_sizes in enumerate(np.array_split(sizes, n_experiments)):
        name = f"tracks_{number}"
        tables = [
            random_track_table(int(size), np.random.default_rng([seed, number, fov]), mean_track_frames, yx_shape)
            for fov, size in enumerate(experiment_sizes)
        ]
        n_frames = max(int(table["t"].max()) for table in tables) + 1
        planes = (len(_CHANNELS), 1, *yx_shape)
        frame = np.random.default_rng([seed, number]).poisson(200, planes) if noise else np.zeros(planes)
        image = np.broadcast_to(frame.astype(np.float32), (n_frames, *planes))
        chunks = (1, 1, 1, *yx_shape) if noise else image.shape
        with PlateWriter(root / name / "images.zarr", _CHANNELS, version=version, chunks=chunks) as plate:
            for fov_name, table in zip(_fov_names(), tables, strict=False):
                plate.write(fov_name, image)
                write_tracks(table, tracks_csv(root / name / "tracks", fov_name))
        entries.append(_entry(name, number))
    return write_experiments_file(entries, target)


def random_track_table(
    n_observations: int, rng: np.random.Generator, mean_track_frames: int = 20, yx_shape: tuple[int, int] = (64, 64)
) -> pd.DataFrame:
    """Draw the tracking table of one FOV, without a loop over tracks.

    Parameters
    ----------
    n_observations : int
        Rows.
    rng : numpy.random.Generator
        The only source of randomness.
    mean_track_frames : int, default 20
        Mean of the geometric lengths.
    yx_shape : tuple of int, default (64, 64)
        Positions are in [0, size - 1].

    Returns
    -------
    DataFrame
        ``track_id, t, y, x, id, parent_track_id, parent_id``, sorted by track and time.
    """
    n_tracks = 4 * (n_observations // (2 * mean_track_frames) + 4)
    length = rng.geometric(1 / mean_track_frames, n_tracks)
    while length.sum() < n_observations:
        length = np.concatenate([length, rng.geometric(1 / mean_track_frames, n_tracks)])
    parent = _parents(len(length), rng)
    start = _starts(length, parent, rng)
    track = np.repeat(np.arange(len(length)), length)[:n_observations]
    first = np.cumsum(length) - length
    row = np.arange(n_observations)
    age = row - first[track]
    mother = parent[track]
    last_of_mother = first[mother] + length[mother] - 1
    position = {axis: _walk(track, row, size, rng) for axis, size in zip("yx", yx_shape, strict=True)}
    return pd.DataFrame(
        {
            "track_id": track,
            "t": start[track] + age,
            **position,
            "id": row,
            "parent_track_id": mother,
            "parent_id": np.where(age > 0, row - 1, np.where(mother >= 0, last_of_mother, -1)),
        }
    )


def _parents(n_tracks: int, rng: np.random.Generator) -> np.ndarray:
    """Return the parent of each track, -1 for none, always an earlier track.

    Of each four tracks the last two are daughters of one of the four tracks before them, and no track is before two
    such pairs: a quarter of the tracks divide, over several generations, however the list is cut.
    """
    n_blocks = -(-n_tracks // 4)
    mother = np.maximum(4 * np.arange(n_blocks) + rng.integers(-2, 2, n_blocks), 0)
    parent = np.full((n_blocks, 4), -1, np.int64)
    parent[:, 2:] = mother[:, None]
    return parent.ravel()[:n_tracks]


def _starts(length: np.ndarray, parent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return first frames: roots anywhere early on, daughters the frame after their mother's last, by generation."""
    start = rng.integers(0, _START_FRAMES, len(length))
    known = parent < 0
    while not known.all():
        ready = ~known & known[parent]
        start[ready] = (start + length)[parent[ready]]
        known |= ready
    return start


def _walk(track: np.ndarray, row: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return one coordinate of random walks that are reflected at the border, float32."""
    path = np.cumsum(rng.normal(0, 1, len(row)))
    first = np.flatnonzero(np.diff(track, prepend=-1))
    origin = rng.uniform(0, size - 1, int(track[-1]) + 1)
    free = path - path[first][track] + origin[track]
    return (size - 1 - np.abs(np.mod(free, 2 * (size - 1)) - (size - 1))).astype(np.float32)


def _fov_names() -> Iterator[str]:
    wells = [well for pair in zip(*_CONDITION_WELLS.values(), strict=True) for well in pair]
    number = 0
    while True:
        yield from (f"{well}/{number}" for well in wells)
        number += 1


def _entry(name: str, number: int) -> dict:
    return {
        "name": name,
        "data_path": f"{name}/images.zarr",
        "tracks_path": f"{name}/tracks",
        "channel_names": list(_CHANNELS),
        "source_channel": list(_CHANNELS),
        "condition_wells": _CONDITION_WELLS,
        "interval_minutes": (15.0, 30.0, 60.0)[number % 3],
        "start_hpi": 3.0,
        "organelle": "",
    }
