"""Distances of some cells to all others, block by block, without those that are too closely related to count."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

__all__ = ["blocks_of_distances", "nearest_rows"]

_BLOCK_ENTRIES = 20_000_000  # of float32 distances: 80 MB

Exclusion = Callable[[np.ndarray], np.ndarray]


def blocks_of_distances(
    features: np.ndarray, queries: np.ndarray, excluded: Exclusion, *, metric: str = "euclidean"
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Compute the distances of queries to all rows.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
    queries : ndarray of int, shape (Q,)
        Rows.
    excluded : callable
        From queries (B,) to a mask (B, N) of the rows that are not compared with them, such as themselves.
    metric : {"euclidean", "cosine"}, default "euclidean"
        Cosine is that of the centred features. Both are increasing functions of what is returned.

    Yields
    ------
    queries : ndarray of int, shape (B,)
    distances : ndarray of float32, shape (B, N)
        Euclidean, of rows of length 1 for "cosine"; infinite for what is excluded.
    """
    rows = np.asarray(features, dtype=np.float32)
    rows = rows - rows.mean(axis=0)
    if metric == "cosine":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    elif metric != "euclidean":
        raise ValueError(f"metric: found {metric!r}, expected 'euclidean' or 'cosine'")
    squares = np.einsum("nf,nf->n", rows, rows)
    n_block = max(1, _BLOCK_ENTRIES // max(1, len(rows)))
    for start in range(0, len(queries), n_block):
        block = queries[start : start + n_block]
        distances = squares[block, None] + squares - 2 * rows[block] @ rows.T
        distances = np.sqrt(np.maximum(distances, 0, out=distances), out=distances)
        distances[excluded(block)] = np.inf
        yield block, distances


def nearest_rows(
    features: np.ndarray,
    queries: np.ndarray,
    k: int,
    *,
    groups: np.ndarray | None = None,
    metric: str = "euclidean",
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest rows of queries: exact, in about 3 s for 2000 queries among 100,000 rows of 128 features.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
    queries : ndarray of int, shape (Q,)
        Rows.
    k : int
        How many.
    groups : ndarray, shape (N,), optional
        Neighbours come from other groups than the query, such as other lineages; without, only the query itself is
        left out.
    metric : {"euclidean", "cosine"}, default "euclidean"

    Returns
    -------
    rows : ndarray of int64, shape (Q, k)
        The nearest first; of equally near ones the first rows.
    distances : ndarray of float32, shape (Q, k)

    Raises
    ------
    ValueError
        If a query has fewer than k rows to choose from.
    """
    codes = np.arange(len(features)) if groups is None else np.unique(groups, return_inverse=True)[1]
    fewest = len(features) - int(np.bincount(codes)[codes[queries]].max(initial=0))
    if fewest < k:
        raise ValueError(f"k = {k} neighbours, but there are {fewest} cells to choose from")
    found = [
        _smallest(distances, k)
        for _, distances in blocks_of_distances(
            features, queries, lambda block: codes[block, None] == codes, metric=metric
        )
    ]
    return np.concatenate([rows for rows, _ in found]), np.concatenate([near for _, near in found])


def _smallest(distances: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if k < distances.shape[1]:
        rows = np.sort(np.argpartition(distances, k - 1, axis=1)[:, :k], axis=1)
    else:
        rows = np.broadcast_to(np.arange(k), distances.shape)
    near = np.take_along_axis(distances, rows, axis=1)
    order = np.argsort(near, axis=1, kind="stable")
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(near, order, axis=1)
