"""Neighbourhoods and clusters of embeddings, against annotations."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from viscy_data.optional import require

__all__ = [
    "clustering_evaluation",
    "compare_time_offset",
    "dbscan_clustering",
    "knn_accuracy",
    "pairwise_distance_matrix",
    "rank_nearest_neighbors",
    "select_block",
]

_logger = logging.getLogger(__name__)
_EXTRA = {"extra": "eval", "package": "viscy-utils"}


def knn_accuracy(embeddings: ArrayLike, annotations: ArrayLike, k: int = 5, groups: ArrayLike | None = None) -> float:
    """Accuracy with which the nearest neighbours of a cell tell its annotation.

    Parameters
    ----------
    embeddings : array_like, shape (N, F)
        Compared by Euclidean distance.
    annotations : array_like, shape (N,)
    k : int, default 5
        Neighbours that vote; the cell itself is none of them. Of classes with equal votes the first one wins.
    groups : array_like, shape (N,), optional
        Neighbours come from other groups than the cell. Without, cells of its own track vote, which look alike: give
        the lineage or the FOV.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ValueError
        If there are not more than k cells, or outside of a group.
    """
    neighbors = require("sklearn.neighbors", **_EXTRA)
    embeddings, annotations = np.asarray(embeddings), np.asarray(annotations)
    classes, codes = np.unique(annotations, return_inverse=True)
    votes = np.empty((len(codes), len(classes)), dtype=np.int64)
    parts = [None] if groups is None else np.unique(groups)
    for part in parts:
        own = np.ones(len(codes), bool) if part is None else np.asarray(groups) == part
        others = own if part is None else ~own
        if others.sum() <= (k if part is None else k - 1):
            raise ValueError(f"k = {k} neighbours, but there are {others.sum()} cells to choose from")
        search = neighbors.NearestNeighbors(n_neighbors=k).fit(embeddings[others])
        # Without an argument a cell is not among its own neighbours.
        near = search.kneighbors(None if part is None else embeddings[own], return_distance=False)
        votes[own] = np.apply_along_axis(np.bincount, 1, codes[others][near], minlength=len(classes))
    return float(np.mean(votes.argmax(axis=1) == codes))


def pairwise_distance_matrix(
    features: ArrayLike,
    metric: str = "cosine",
    device: Literal["auto", "cuda", "gpu", "cpu", "scipy"] | None = "auto",
) -> NDArray:
    """Compute the distances of all pairs of rows, in float64.

    Parameters
    ----------
    features : array_like, shape (N, F)
    metric : str, default "cosine"
        "cosine" and "euclidean" are computed by torch, others, and all on the device "scipy", by
        `scipy.spatial.distance.cdist`.
    device : {"auto", "cuda", "gpu", "cpu", "scipy"} or None, default "auto"
        "auto" is a GPU where there is one; "cuda" warns where there is none; None is "scipy".

    Returns
    -------
    ndarray of float64, shape (N, N)

    Raises
    ------
    ValueError
        For another device.
    """
    features = np.asarray(features, dtype=np.float64)
    if device not in ("auto", "cuda", "gpu", "cpu", "scipy", None):
        raise ValueError(f"device: found {device!r}, expected 'auto', 'cuda', 'cpu' or 'scipy'")
    if device in ("scipy", None) or metric not in ("cosine", "euclidean"):
        distance = require("scipy.spatial.distance", **_EXTRA)
        return distance.cdist(features, features, metric)
    import torch

    has_gpu = torch.cuda.is_available()
    if device in ("cuda", "gpu") and not has_gpu:
        _logger.warning("there is no GPU: distances are computed on the CPU")
    place = "cpu" if device == "cpu" or not has_gpu else "cuda"
    rows = torch.as_tensor(features, device=place)
    if metric == "cosine":
        unit = torch.nn.functional.normalize(rows, dim=1)
        return (1 - unit @ unit.T).cpu().numpy()
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").cpu().numpy()


def rank_nearest_neighbors(cross_dissimilarity: NDArray, normalize: bool = True) -> NDArray:
    """Rank the columns of each row, the nearest first.

    Parameters
    ----------
    cross_dissimilarity : ndarray, shape (N, N)
    normalize : bool, default True
        Divide by N - 1, so that ranks are 0 to 1.

    Returns
    -------
    ndarray, shape (N, N)
        int64, or float64 when normalised.
    """
    ranks = np.argsort(np.argsort(cross_dissimilarity, axis=1), axis=1)
    return ranks / (cross_dissimilarity.shape[1] - 1) if normalize else ranks


def select_block(distances: NDArray, index: NDArray) -> NDArray:
    """Select rows and the same columns of a square matrix."""
    return np.asarray(distances)[np.ix_(index, index)]


def compare_time_offset(single_track_distances: NDArray, time_offset: int = 1) -> NDArray:
    """Select the entries of a track's matrix that compare each row with the one so many rows before.

    Parameters
    ----------
    single_track_distances : ndarray, shape (T, T)
        Rows and columns are frames without gaps.
    time_offset : int, default 1

    Returns
    -------
    ndarray, shape (T - time_offset,)
    """
    return np.diagonal(single_track_distances, offset=-time_offset)


def dbscan_clustering(embeddings: ArrayLike, eps: float = 0.5, min_samples: int = 5) -> NDArray:
    """Cluster by density (Ester et al. 1996); -1 are the rows outside of all clusters."""
    cluster = require("sklearn.cluster", **_EXTRA)
    return cluster.DBSCAN(eps=eps, min_samples=min_samples).fit_predict(np.asarray(embeddings))


def clustering_evaluation(
    embeddings: ArrayLike, annotations: ArrayLike, method: Literal["nmi", "ari"] = "nmi"
) -> float:
    """Compare density clusters with annotations.

    Parameters
    ----------
    embeddings : array_like, shape (N, F)
    annotations : array_like, shape (N,)
    method : {"nmi", "ari"}, default "nmi"
        Normalised mutual information or adjusted Rand index.

    Raises
    ------
    ValueError
        For another method.
    """
    metrics = require("sklearn.metrics", **_EXTRA)
    scores = {"nmi": metrics.normalized_mutual_info_score, "ari": metrics.adjusted_rand_score}
    if method not in scores:
        raise ValueError(f"method: found {method!r}, expected 'nmi' or 'ari'")
    return float(scores[method](np.asarray(annotations), dbscan_clustering(embeddings)))
