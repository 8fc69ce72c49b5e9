"""The table that users see: columns of the tracking tables, and what follows from experiment, well and lineage."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dynaclr.experiment import ExperimentRegistry
from dynaclr.index.conditions import conditions_of_fovs
from dynaclr.index.tracks_table import TracksTable
from dynaclr.lineage import LineageForest
from viscy_data.blocks import row_blocks
from viscy_data.errors import InputError
from viscy_data.patches import clamp_centers
from viscy_data.stores import canonical_fov_name

__all__ = ["build_observations", "known_different", "labelled"]


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
    tracks, lineages = labelled(_track_names(table), table.track_index, forest.root[table.track_index])
    columns: dict[str, Any] = {}
    columns["experiment"] = _categorical(experiment, registry.names)
    columns["condition"] = _categorical(fov, conditions_of_fovs(registry, table))
    columns["well_name"] = _categorical(fov, [info.well for info in table.fovs])
    columns["fov_name"] = _categorical(fov, [info.name for info in table.fovs])
    columns["global_track_id"] = tracks
    columns["hours_post_infection"] = _hours(registry, experiment, table.columns["t"].to_numpy())
    columns["fluorescence_channel"] = _categorical(experiment, reporters)
    columns["lineage_id"] = lineages
    for axis, name, size in ((3, "y", yx_patch_size[0]), (4, "x", yx_patch_size[1])):
        extents = np.array([info.shape[axis] for info in table.fovs])
        columns[f"{name}_clamp"] = _clamped(table.columns[name].to_numpy(), size, extents, fov)
    columns["border_shift"] = border_shift
    return pd.DataFrame(_as_given(table, columns) | columns, copy=False)


def _as_given(table: TracksTable, derived: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of the tables; those called like a derived one get a name of their own."""
    given, renamed = {}, {}
    for name in table.columns:
        values = table.columns[name].array
        if name not in derived:
            given[name] = values
        elif not _says_the_same(values, derived[name]):
            renamed[name] = f"tracks_{name}"
            given[renamed[name]] = values
    if clash := [name for name in renamed.values() if name in table.columns or name in derived]:
        raise InputError("tracking tables", field=clash[0], found="a name that is needed here", fix="rename the column")
    if renamed:
        pairs = ", ".join(f"{old!r} (now {new!r})" for old, new in renamed.items())
        warnings.warn(
            f"columns of the tracking tables have the names of columns of the index, and others in it: {pairs}",
            stacklevel=5,
        )
    return given


def _says_the_same(given: Any, derived: Any) -> bool:
    """Tell whether a column of the tables repeats what is derived, such as the name of the FOV."""
    given, derived = np.asarray(given), np.asarray(derived)
    if given.dtype.kind in "iuf" and derived.dtype.kind in "iuf":
        return np.allclose(given, derived, rtol=1e-6)
    canonical = np.array([canonical_fov_name(value) for value in given], dtype=object)
    return bool((canonical == np.array([canonical_fov_name(value) for value in derived], dtype=object)).all())


def _categorical(numbers: np.ndarray, labels: Sequence[str]) -> pd.Categorical:
    """Label observations by a number that several labels may share."""
    codes, categories = pd.factorize(np.array(labels, dtype=object))
    return pd.Categorical.from_codes(codes.astype(np.min_scalar_type(-len(categories) - 1))[numbers], categories)


def _hours(registry: ExperimentRegistry, experiment: np.ndarray, t: np.ndarray) -> np.ndarray:
    start = np.array([config.start_hpi for config in registry.experiments])
    hours = np.empty(len(t), np.float32)
    for part in row_blocks(len(t)):
        own = experiment[part]
        hours[part] = start[own] + t[part] * registry.interval_hours[own]
    return hours


def _clamped(center: np.ndarray, size: int, extents: np.ndarray, fov: np.ndarray) -> np.ndarray:
    clamped = np.empty(len(center), np.float32)
    for part in row_blocks(len(center)):
        clamped[part] = clamp_centers(center[part], size, extents[fov[part]])
    return clamped


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
    # Arrow keeps a name in 26 bytes, objects of Python in 80.
    return known_different(pd.Index(pd.arrays.ArrowStringArray(names.cast(pa.large_string()))))


def known_different(names: pd.Index) -> pd.Index:
    """Note that no name comes twice, where pandas notes it: to find out it makes an object of each and a hash table.

    That is most of the time of opening a saved index, and half a gigabyte for five million tracks.
    """
    names._cache["is_unique"] = True
    return names


def labelled(names: pd.Index, *codes: np.ndarray) -> list[pd.Categorical]:
    """Label rows by different names, without a copy of names or codes.

    What comes out of pickle has the codes that went into it and the names, but not the hash table, twice the size of
    the names, by which pandas has made sure that none comes twice, unless that was known (:func:`known_different`).
    """
    buffers: list[pickle.PickleBuffer] = []
    labels = [pd.Categorical.from_codes(own, names, validate=False) for own in codes]  # which would read them all
    data = pickle.dumps(labels, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=buffers)  # noqa: S301 - made in the line above
