"""The table that users see: columns of the tracking tables, and what follows from experiment, well and lineage."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dynaclr.experiment import ExperimentRegistry
from dynaclr.experiment.config import ExperimentConfig
from dynaclr.index.tracks_table import TracksTable
from dynaclr.lineage import LineageForest
from viscy_data.errors import InputError
from viscy_data.patches import clamp_centers
from viscy_data.stores import canonical_fov_name

__all__ = ["build_observations"]

UNKNOWN = "unknown"


def build_observations(
    registry: ExperimentRegistry,
    table: TracksTable,
    forest: LineageForest,
    yx_patch_size: tuple[int, int],
    border_shift: np.ndarray,
) -> pd.DataFrame:
    """Derive the columns of an index from its tracks.

    Parameters
    ----------
    registry : ExperimentRegistry
        Experiments of the table, in its order.
    table : TracksTable
        Observations and tracks.
    forest : LineageForest
        Relations of the tracks.
    yx_patch_size : tuple of int
        Height and width of a patch; ``y_clamp`` and ``x_clamp`` are centres whose patch lies in the image.
    border_shift : ndarray of int16, shape (N,)
        By how much the patches are moved for that.

    Returns
    -------
    pandas.DataFrame
        As described at ``MultiExperimentIndex.tracks``. Texts are categorical and share the memory of their categories.
    """
    configs = registry.experiments
    fov = table.fov_index
    experiment = table.fov_experiment[fov]
    reporters = [config.source_channel[1] if len(config.source_channel) > 1 else "" for config in configs]
    track_names = _track_names(table)
    columns = {name: table.columns[name].array for name in table.columns}
    columns["experiment"] = _categorical(experiment, [config.name for config in configs])
    columns["condition"] = _categorical(fov, _conditions(configs, table))
    columns["well_name"] = _categorical(fov, [info.well for info in table.fovs])
    columns["fov_name"] = _categorical(fov, [info.name for info in table.fovs])
    columns["global_track_id"] = pd.Categorical.from_codes(table.track_index, track_names)
    columns["hours_post_infection"] = _hours(configs, experiment, table.columns["t"].to_numpy())
    columns["fluorescence_channel"] = _categorical(experiment, reporters)
    columns["lineage_id"] = pd.Categorical.from_codes(forest.root[table.track_index], track_names)
    for axis, name, size in ((3, "y", yx_patch_size[0]), (4, "x", yx_patch_size[1])):
        extents = np.array([info.shape[axis] for info in table.fovs])
        columns[f"{name}_clamp"] = clamp_centers(table.columns[name].to_numpy(), size, extents[fov])
    columns["border_shift"] = border_shift
    return pd.DataFrame(columns, copy=False)


def _categorical(numbers: np.ndarray, labels: Sequence[str]) -> pd.Categorical:
    """Label observations by a number that several labels may share."""
    codes, categories = pd.factorize(np.array(labels, dtype=object))
    return pd.Categorical.from_codes(codes.astype(np.min_scalar_type(-len(categories) - 1))[numbers], categories)


def _hours(configs: Sequence[ExperimentConfig], experiment: np.ndarray, t: np.ndarray) -> np.ndarray:
    start = np.array([config.start_hpi for config in configs])
    interval = np.array([config.interval_minutes / 60 for config in configs])
    return (start[experiment] + t * interval[experiment]).astype(np.float32)


def _track_names(table: TracksTable) -> pd.Index:
    """``experiment_FOV_track`` for every track: unique, because FOV and track hold no underscore that could move."""
    prefixes = [
        f"{table.experiments[number]}_{info.name}"
        for number, info in zip(table.fov_experiment, table.fovs, strict=True)
    ]
    if len(set(prefixes)) < len(prefixes):
        twice = next(prefix for prefix in prefixes if prefixes.count(prefix) > 1)
        raise InputError(
            "names of experiments and FOVs",
            found=f"two FOVs that both read {twice!r} as experiment_FOV",
            expected="names that stay different when joined",
            fix="rename one of the experiments",
        )
    names = pc.binary_join_element_wise(
        pa.array(prefixes).take(pa.array(table.track_fov)), pa.array(table.track_id).cast(pa.string()), "_"
    )
    return pd.Index(names.to_pandas())


def _conditions(configs: Sequence[ExperimentConfig], table: TracksTable) -> list[str]:
    """Condition of each FOV."""
    known = [
        {canonical_fov_name(well): condition for condition, wells in config.condition_wells.items() for well in wells}
        for config in configs
    ]
    labels = [
        known[number].get(info.well, UNKNOWN) for number, info in zip(table.fov_experiment, table.fovs, strict=True)
    ]
    nameless = dict.fromkeys(
        f"{table.experiments[number]}: {info.well}"
        for number, info in zip(table.fov_experiment, table.fovs, strict=True)
        if info.well not in known[number]
    )
    if nameless:
        warnings.warn(
            f"{len(nameless)} wells are in no condition of condition_wells and are called {UNKNOWN!r}: "
            f"{', '.join(nameless)}",
            stacklevel=5,
        )
    return labels
