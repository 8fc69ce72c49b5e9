"""How many of a cell's neighbours of other lineages carry its label."""

from __future__ import annotations

import numpy as np

from viscy_utils.evaluation.draws import draw_rows
from viscy_utils.evaluation.intervals import mean_by_unit
from viscy_utils.evaluation.neighborhoods import nearest_rows
from viscy_utils.evaluation.scores import Score

__all__ = ["knn_purity"]


def knn_purity(
    features: np.ndarray,
    labels: np.ndarray,
    lineages: np.ndarray,
    *,
    k: int = 15,
    n_queries: int = 2000,
    seed: int = 0,
) -> Score:
    """Compute the mean share of the nearest neighbours with the label of the cell (Manning et al. 2008, section 16.3).

    About 4 s for 100,000 cells of 128 features; neighbours are exact.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
        Compared by cosine distance from the mean.
    labels, lineages : ndarray, shape (N,)
        Neighbours come from other lineages than the cell, whose own frames look alike.
    k : int, default 15
    n_queries : int, default 2000
        Cells that are asked for, drawn evenly at random.
    seed : int, default 0

    Returns
    -------
    Score
        Mean over labels, so that each weighs the same; chance is 1 / number of labels. Missing with a single label or
        too few cells.
    """
    codes = np.unique(labels, return_inverse=True)[1]
    frequencies = np.bincount(codes) / len(codes)
    if len(frequencies) < 2:
        return Score.missing("a single label")
    largest = int(np.bincount(np.unique(lineages, return_inverse=True)[1]).max())
    if len(codes) - largest < k:
        return Score.missing(f"fewer than {k} cells of other lineages")
    queries = draw_rows(len(codes), n_queries, seed)
    rows, _ = nearest_rows(features, queries, k, groups=lineages, metric="cosine")
    own = codes[queries]
    values = (codes[rows] == own[:, None]).mean(axis=1)
    weights = 1 / np.bincount(own, minlength=len(frequencies))[own]  # so that labels weigh the same
    mean = mean_by_unit(values, np.asarray(lineages)[queries], seed, weights)
    return Score(*mean, float(frequencies[np.unique(own)].mean()), n_cells=len(queries))
