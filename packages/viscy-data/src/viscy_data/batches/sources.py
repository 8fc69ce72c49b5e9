"""What the FOVs of a dataset are, for records, and what statistics they lack, for errors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from viscy_data.norm_meta import NormStatistics
from viscy_data.stores import FovInfo

__all__ = ["count_missing_statistics", "digest_sources", "image_records"]


def digest_sources(
    fovs: Sequence[FovInfo],
    channel_names: Sequence[Sequence[str | None]],
    fov_index: np.ndarray,
    columns: Sequence[np.ndarray] = (),
) -> list[dict[str, Any]]:
    """Say which observations of which stores there are.

    Parameters
    ----------
    fovs : sequence of FovInfo
    channel_names : sequence of sequence of (str or None)
        Per FOV the names of the channels that are read.
    fov_index : ndarray of int, shape (N,)
        FOV of each observation.
    columns : sequence of ndarray, shape (N,), default ()
        What else tells observations apart, such as frame and place.

    Returns
    -------
    list of dict
        Per store ``store``, ``fovs`` (count), ``observations`` (count) and ``digest`` of names, shapes, channels and
        observations.
    """
    stores = np.array([fov.store for fov in fovs], dtype=object)
    sources = []
    for store in dict.fromkeys(stores):
        own_fovs = stores == store
        rows = own_fovs[fov_index]
        digest = hashlib.blake2b(digest_size=16)
        for number in np.flatnonzero(own_fovs):
            fov = fovs[number]
            digest.update(repr((fov.name, fov.shape, list(channel_names[number]))).encode())
        for column in (fov_index, *columns):
            own = column[rows]
            if own.dtype.kind in "iu":  # however narrow whole numbers are kept
                own = own.astype(np.promote_types(own.dtype, np.int32))
            digest.update(np.ascontiguousarray(own).tobytes())
        n_fovs, n_rows = int(own_fovs.sum()), int(rows.sum())
        sources.append({"store": store, "fovs": n_fovs, "observations": n_rows, "digest": digest.hexdigest()})
    return sources


def image_records(
    fovs: Sequence[FovInfo],
    channel_names: Sequence[Sequence[str | None]],
    fov_index: np.ndarray,
    slices: slice,
    size: tuple[int, int],
    experiments: np.ndarray | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Say which channels and slices of which stores the images of cells are, for whoever wants to show them later.

    Parameters
    ----------
    fovs, channel_names, fov_index
        As for :func:`digest_sources`.
    slices : slice
        Of every image, end excluded.
    size : tuple of int
        Height and width in pixels.
    experiments : ndarray of str, shape (N,), optional
        Of each observation; a FOV belongs to one.

    Returns
    -------
    dict of str to list of dict
        Per store ``experiment`` (None where there are none), ``channels`` (name or None by position), ``z_range`` and
        ``yx_size``: one entry for each experiment and choice of channels.
    """
    records: dict[str, list[dict[str, Any]]] = {}
    for number, row in zip(*np.unique(fov_index, return_index=True), strict=True):
        record = {"experiment": None if experiments is None else str(experiments[row])}
        record |= {"channels": list(channel_names[number]), "z_range": [slices.start, slices.stop]}
        record |= {"yx_size": list(size)}
        own = records.setdefault(fovs[number].store, [])
        if record not in own:
            own.append(record)
    return records


def count_missing_statistics(
    statistics: NormStatistics,
    fovs: Sequence[FovInfo],
    channel_names: Sequence[Sequence[str | None]],
    keys: Sequence[str],
    level: str,
    wanted: Sequence[str],
    labels: Sequence[str] | None = None,
) -> dict[tuple[str, str, str], int]:
    """Count the FOVs that lack statistics of a level.

    Parameters
    ----------
    statistics : NormStatistics
    fovs, channel_names
        As for :func:`digest_sources`.
    keys : sequence of str
        Names of the channels by position, as transforms know them.
    level : str
        Such as ``fov_statistics``.
    wanted : sequence of str
        Those of the keys that need statistics.
    labels : sequence of str, optional
        What messages call the origin of each FOV; its store by default.

    Returns
    -------
    dict of (label, channel in the store, store) to int
    """
    missing = set(statistics.missing(level))
    counts: dict[tuple[str, str, str], int] = {}
    for fov, label, names in zip(fovs, labels or [fov.store for fov in fovs], channel_names, strict=True):
        for key, name in zip(keys, names, strict=True):
            if key in wanted and (fov.key, name) in missing:
                entry = label, name, fov.store
                counts[entry] = counts.get(entry, 0) + 1
    return counts
