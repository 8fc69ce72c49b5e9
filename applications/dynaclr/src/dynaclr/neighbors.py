"""Near neighbours of anchors in an embedding: the cells that are hardest to tell from them.

Embeddings of an earlier run say which cells look alike. Of these the training batches take hard negatives: cells of the
same experiment and of other lineages, since the nearest ones of all are the cell itself in the frames around.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from viscy_data.errors import InputError
from viscy_data.optional import require
from viscy_utils.evaluation.embedded import CELL, canonical_cells, read_embedded

__all__ = ["anchor_neighbors", "nearest_of_other_lineages"]

_logger = logging.getLogger(__name__)

_EXACT_UP_TO = 200_000


def anchor_neighbors(
    anchors: pd.DataFrame, embeddings: str | Path, n_neighbors: int = 10, obsm: str | None = None
) -> np.ndarray:
    """Find the near neighbours of anchors by stored embeddings.

    Parameters
    ----------
    anchors : pandas.DataFrame
        One row per anchor, with ``experiment, fov_name, track_id, t, lineage_id``.
    embeddings : str or Path
        AnnData store that ``predict`` has written, of these experiments.
    n_neighbors : int, default 10
        Neighbours per anchor.
    obsm : str, optional
        Key of an array of the store to compare, in place of its features.

    Returns
    -------
    ndarray of int64, shape (N, n_neighbors)
        Positions of the neighbours among the anchors, nearest first, by the cosine of their features; -1 for none.
        Anchors without an embedding, which are counted in a log message, have and are none.

    Raises
    ------
    InputError
        If the store cannot be used, holds a cell twice, or has none of the anchors.
    """
    embedded = read_embedded("neighbors", embeddings, obsm=obsm)
    rows = _rows_of(anchors, embedded.obs, str(embeddings))
    if n_missing := int((rows < 0).sum()):
        _logger.warning(
            "%d of %d anchors are not among the embeddings %s: they have no neighbours",
            n_missing,
            len(rows),
            embeddings,
        )
    lineages = anchors["lineage_id"].to_numpy()
    neighbors = np.full((len(anchors), n_neighbors), -1, dtype=np.int64)
    for places in anchors.groupby("experiment", observed=True).indices.values():
        places = places[rows[places] >= 0]
        found = nearest_of_other_lineages(embedded.features[rows[places]], lineages[places], n_neighbors)
        neighbors[places] = np.where(found < 0, -1, places[found])
    return neighbors


def _rows_of(anchors: pd.DataFrame, obs: pd.DataFrame, where: str) -> np.ndarray:
    """Find the row of each anchor among the embeddings, -1 for none."""
    known = pd.MultiIndex.from_frame(canonical_cells(obs)[CELL])
    if not known.is_unique:
        twice = "/".join(map(str, known[known.duplicated()][0]))
        raise InputError(where, found=f"{twice} more than once", expected="one row for each cell and frame")
    rows = known.get_indexer(pd.MultiIndex.from_frame(canonical_cells(anchors[CELL])))
    if (rows < 0).all():
        names = ", ".join(sorted(set(canonical_cells(obs)["experiment"])))
        raise InputError(
            where,
            found=f"none of the anchors, but cells of {names}",
            expected="embeddings of the experiments that are trained on",
            fix="predict them first",
        )
    return rows


def nearest_of_other_lineages(
    features: np.ndarray, lineages: np.ndarray, n_neighbors: int, exact_up_to: int = _EXACT_UP_TO
) -> np.ndarray:
    """Find the nearest rows of other lineages, by the cosine of the features.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
    lineages : ndarray, shape (N,)
    n_neighbors : int
        Neighbours per row.
    exact_up_to : int, default 200 000
        More rows are searched approximately, by ``faiss``.

    Returns
    -------
    ndarray of int64, shape (N, n_neighbors)
        Rows, nearest first; -1 where there are no more.

    Raises
    ------
    ImportError
        If there are more rows and ``faiss`` is not installed.

    Examples
    --------
    >>> angles = np.array([0.0, 0.1, 0.2, 1.5])
    >>> nearest_of_other_lineages(np.stack([np.cos(angles), np.sin(angles)], axis=1), np.array([0, 0, 1, 2]), 2)
    array([[2, 3],
           [2, 3],
           [1, 0],
           [2, 1]])
    """
    n_rows = len(features)
    found = np.full((n_rows, n_neighbors), -1, dtype=np.int64)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    search = (_exact if n_rows <= exact_up_to else _approximate)(features / np.maximum(norms, 1e-12))
    waiting, n_asked = np.arange(n_rows), min(n_rows, 4 * n_neighbors)
    while len(waiting):
        nearest = search(waiting, n_asked)
        usable = (nearest >= 0) & (lineages[nearest] != lineages[waiting, None])
        first = np.argsort(~usable, axis=1, kind="stable")[:, :n_neighbors]
        chosen = np.take_along_axis(np.where(usable, nearest, -1), first, axis=1)
        found[waiting, : chosen.shape[1]] = chosen
        # Those whose own lineage takes up all of the room ask for more.
        waiting = waiting[usable.sum(axis=1) < n_neighbors] if n_asked < n_rows else waiting[:0]
        n_asked = min(n_rows, 4 * n_asked)
    return found


def _exact(vectors: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(algorithm="brute").fit(vectors)
    return lambda rows, n: index.kneighbors(vectors[rows], n, return_distance=False)


def _approximate(vectors: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
    """Search the 32 nearest of about 4 sqrt(N) clusters."""
    faiss = require("faiss", extra="neighbors", package="dynaclr")
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    index = faiss.index_factory(vectors.shape[1], f"IVF{int(4 * len(vectors) ** 0.5)},Flat", faiss.METRIC_INNER_PRODUCT)
    index.nprobe = 32
    index.train(vectors)
    index.add(vectors)
    return lambda rows, n: index.search(vectors[rows], n)[1]
