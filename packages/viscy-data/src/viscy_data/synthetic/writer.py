"""Simulated experiments on disk: HCS OME-Zarr store, tracking CSVs, truth, and the file that lists experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import yaml

from viscy_data.files import refuse_existing, replacing
from viscy_data.stores import PlateWriter
from viscy_data.synthetic.population import TRACK_COLUMNS, simulate_tracks
from viscy_data.synthetic.rendering import render_fov
from viscy_data.synthetic.specs import ExperimentSpec
from viscy_data.tracks import write_tracks

__all__ = ["ExperimentPaths", "tracks_csv", "write_experiment", "write_experiments", "write_experiments_file"]


class ExperimentPaths(NamedTuple):
    """Where an experiment was written."""

    store: Path
    """The HCS OME-Zarr store."""
    tracks: Path
    """Folder of the tracking CSVs."""
    truth: Path
    """CSV of the truth, see :func:`viscy_data.synthetic.simulate_tracks`."""


def write_experiment(
    spec: ExperimentSpec,
    root: str | Path,
    *,
    seed: int = 0,
    version: Literal["0.4", "0.5"] = "0.5",
    sharded: bool = False,
    chunks: Sequence[int] | None = None,
    dtype: Literal["float32", "uint16"] = "float32",
    progress: Callable[[str, int, int], None] | None = None,
) -> ExperimentPaths:
    """Simulate one experiment and write it to ``<root>/<name>``.

    Parameters
    ----------
    spec : ExperimentSpec
        The experiment.
    root : str or Path
        Folder that the experiment's folder is made in.
    seed : int, default 0
        Everything written is a pure function of (seed, spec).
    version : {"0.5", "0.4"}, default "0.5"
        OME-NGFF version: 0.5 is Zarr v3, 0.4 is Zarr v2.
    sharded : bool, default False
        One shard per channel over all of T, Z, Y and X; needs version 0.5.
    chunks : sequence of int, optional
        Chunk shape (T, C, Z, Y, X), cut to the size of the image; by default one stack of at most 256 x 256 pixels.
    dtype : {"float32", "uint16"}, default "float32"
        Pixel type; values are whole counts in either, clipped to its range in uint16.
    progress : callable, optional
        Called as ``progress(fov_name, n_done, n_fovs)`` after each FOV.

    Returns
    -------
    ExperimentPaths
        ``images.zarr``, ``tracks/`` and ``truth.csv`` in the folder of the experiment.

    Raises
    ------
    FileExistsError
        If the folder of the experiment exists.
    ValueError
        For ``sharded`` with version 0.4.
    """
    if sharded and version == "0.4":
        raise ValueError("sharded stores need version 0.5: Zarr v2 has no shards")
    with replacing(Path(root) / spec.name) as folder:
        folder.mkdir()
        truths = []
        layout = _layout(spec, chunks, sharded)
        with PlateWriter(folder / "images.zarr", spec.channel_names, version=version, **layout) as plate:
            for fov_name in spec.fov_conditions:
                truth = simulate_tracks(spec, fov_name, seed=seed)
                movie = render_fov(spec, truth, fov_name, seed=seed)
                plate.write(fov_name, movie.clip(0, 65535).astype(dtype) if dtype == "uint16" else movie)
                columns = [name for name in TRACK_COLUMNS if name != "z" or spec.shape[0] > 1]
                write_tracks(truth[columns], tracks_csv(folder / "tracks", fov_name))
                truths.append(truth)
                if progress is not None:
                    progress(fov_name, len(truths), len(spec.fov_conditions))
        pd.concat(truths, ignore_index=True).to_csv(folder / "truth.csv", index=False)
    return ExperimentPaths(*(Path(root) / spec.name / name for name in ("images.zarr", "tracks", "truth.csv")))


def write_experiments(specs: Sequence[ExperimentSpec], root: str | Path, **options: Any) -> Path:
    """Write several experiments and the ``experiments.yml`` that lists them.

    Parameters
    ----------
    specs : sequence of ExperimentSpec
        Experiments with different names.
    root : str or Path
        Folder for everything.
    **options
        As for :func:`write_experiment`.

    Returns
    -------
    Path
        ``<root>/experiments.yml``; its paths are relative to it, so that the folder can be moved.

    Raises
    ------
    ValueError
        If two experiments have one name.
    FileExistsError
        If the file or one of the experiments exists.
    """
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise ValueError(f"experiments must have different names, got {names}")
    target = Path(root) / "experiments.yml"
    refuse_existing(target)
    for spec in specs:
        write_experiment(spec, root, **options)
    return write_experiments_file([_entry(spec) for spec in specs], target)


def write_experiments_file(entries: Sequence[Mapping[str, Any]], target: Path) -> Path:
    """Write entries with the fields of an experiment config under the key ``experiments``."""
    with replacing(target) as temporary:
        temporary.write_text(yaml.safe_dump({"experiments": [dict(entry) for entry in entries]}, sort_keys=False))
    return target


def tracks_csv(tracks: Path, fov_name: str) -> Path:
    """Return the path of a FOV's table: ``<tracks>/A/1/0/tracks_A_1_0.csv``."""
    return tracks / fov_name / f"tracks_{fov_name.replace('/', '_')}.csv"


def _entry(spec: ExperimentSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_path": f"{spec.name}/images.zarr",
        "tracks_path": f"{spec.name}/tracks",
        "channel_names": list(spec.channel_names),
        "source_channel": list(spec.source_channel),
        "condition_wells": {condition: list(wells) for condition, wells in spec.condition_wells.items()},
        "interval_minutes": spec.interval_minutes,
        "start_hpi": spec.start_hpi,
        "organelle": spec.reporter,
    }


def _layout(spec: ExperimentSpec, chunks: Sequence[int] | None, sharded: bool) -> dict[str, tuple[int, ...]]:
    image = (spec.n_frames, len(spec.channel_names), *spec.shape)
    wanted = tuple(chunks) if chunks is not None else (1, 1, spec.shape[0], 256, 256)
    cut = tuple(min(chunk, size) for chunk, size in zip(wanted, image, strict=True))
    if not sharded:
        return {"chunks": cut}
    shards = tuple(-(-size // chunk) * chunk for chunk, size in zip(cut, image, strict=True))
    return {"chunks": cut, "shards": (shards[0], cut[1], *shards[2:])}
