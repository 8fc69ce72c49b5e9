"""How far the embedding of a cell moves over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from viscy_utils.evaluation.pairs import later_pairs, paired_distances

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["calculate_cosine_similarity_cell", "compute_track_displacement", "mean_squared_displacement"]


def calculate_cosine_similarity_cell(
    embedding_dataset: xr.Dataset, fov_name: str, track_id: int
) -> tuple[np.ndarray, list[float]]:
    """Compare a cell with itself at the beginning of its track.

    Parameters
    ----------
    embedding_dataset : xarray.Dataset
        ``features`` (sample, features) with ``fov_name``, ``track_id`` and ``t``, as from ``read_embedding_dataset``.
    fov_name : str
        Slashes at the ends do not matter.
    track_id : int

    Returns
    -------
    t : ndarray of int, shape (T,)
        Frames of the track in order.
    similarity : list of float
        Cosine similarity to the first of them, -1 to 1.

    Raises
    ------
    ValueError
        If there is no such track.
    """
    names = np.char.strip(np.asarray(embedding_dataset["fov_name"]).astype(str), "/")
    rows = np.flatnonzero((names == fov_name.strip("/")) & (np.asarray(embedding_dataset["track_id"]) == track_id))
    if not len(rows):
        raise ValueError(f"no track {track_id} in FOV {fov_name!r}")
    t = np.asarray(embedding_dataset["t"])[rows]
    order = np.argsort(t, kind="stable")
    features = np.asarray(embedding_dataset["features"])[rows[order]]
    distances = paired_distances(np.broadcast_to(features[0], features.shape), features)
    return t[order], np.clip(1 - distances, -1, 1).tolist()


def compute_track_displacement(
    embedding_dataset: xr.Dataset, distance_metric: Literal["cosine", "euclidean"] = "cosine"
) -> dict[int, list[float]]:
    """Collect the distances within tracks by the time between the frames.

    Parameters
    ----------
    embedding_dataset : xarray.Dataset
        As for :func:`calculate_cosine_similarity_cell`; a coordinate ``experiment`` tells FOVs of equal name apart.
    distance_metric : {"cosine", "euclidean"}, default "cosine"

    Returns
    -------
    dict of int to list of float
        Distances, not squared, of each pair of frames once, by how many frames they are apart. See
        :func:`mean_squared_displacement` for the mean of squares.
    """
    tracks, t = _tracks(embedding_dataset), np.asarray(embedding_dataset["t"])
    features = np.asarray(embedding_dataset["features"])
    found = {}
    for lag in range(1, _longest(tracks, t) + 1):
        earlier, later = later_pairs(tracks, t, lag)
        if len(earlier):
            found[lag] = paired_distances(features[earlier], features[later], distance_metric).tolist()
    return found


def mean_squared_displacement(
    features: np.ndarray, tracks: np.ndarray, t: np.ndarray, max_lag: int | None = None
) -> pd.DataFrame:
    r"""Compute the mean squared displacement of embeddings by the time between frames.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
    tracks, t : ndarray, shape (N,)
        Track, unique across FOVs and experiments, and frame per row.
    max_lag : int, optional
        In frames; by default the length of the longest track.

    Returns
    -------
    DataFrame
        Index ``lag`` in frames; ``msd``, :math:`\overline{\|z_{t+lag} - z_t\|^2}` over all pairs of frames, each
        once; ``relative``, the same over twice the trace of the covariance of the features: 1 for rows that know
        nothing of each other; ``n_pairs`` and ``n_tracks``.
    """
    import pandas as pd

    features = np.asarray(features, dtype=np.float64)
    unrelated = 2 * features.var(axis=0).sum()
    rows = {}
    for lag in range(1, (max_lag or _longest(tracks, t)) + 1):
        earlier, later = later_pairs(tracks, t, lag)
        if len(earlier):
            msd = float(np.mean(paired_distances(features[earlier], features[later], "euclidean") ** 2))
            relative = msd / unrelated if unrelated else float("nan")
            rows[lag] = (msd, relative, len(earlier), len(np.unique(np.asarray(tracks)[earlier])))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["msd", "relative", "n_pairs", "n_tracks"])
    return table.rename_axis("lag")


def _tracks(dataset: xr.Dataset) -> np.ndarray:
    """Track per row, unique across FOVs and experiments."""
    import pandas as pd

    columns = [name for name in ("experiment", "fov_name", "track_id") if name in dataset.coords]
    table = pd.DataFrame({name: np.asarray(dataset[name]) for name in columns})
    return table.groupby(columns, observed=True).ngroup().to_numpy()


def _longest(tracks: np.ndarray, t: np.ndarray) -> int:
    """Frames between the first and the last row of the longest track."""
    codes = np.unique(tracks, return_inverse=True)[1]
    n_tracks = codes.max() + 1 if len(codes) else 0
    first, last = np.full(n_tracks, np.inf), np.full(n_tracks, -np.inf)
    np.minimum.at(first, codes, t)
    np.maximum.at(last, codes, t)
    return int((last - first).max()) if n_tracks else 0
