"""How well batches, such as experiments, are mixed, and whether what mixing leaves still tells labels apart.

LISI: Korsunsky et al., Nature Methods 16 (2019). kBET: Büttner et al., Nature Methods 16 (2019). Average silhouette
widths scaled as by Luecken et al., Nature Methods 19 (2022). `scib-metrics` has the same figures and brings JAX; here
neighbours are of other lineages than the cell's own, which is always of its own batch, and intervals are over lineages.
"""

from __future__ import annotations

import numpy as np

from viscy_data.optional import from_extra
from viscy_utils.evaluation.draws import draw_rows
from viscy_utils.evaluation.intervals import mean_by_unit
from viscy_utils.evaluation.neighborhoods import nearest_rows
from viscy_utils.evaluation.scores import Score

with from_extra("eval", package="viscy-utils"):
    from scipy.stats import chi2
    from sklearn.metrics import silhouette_samples

__all__ = ["batch_silhouette", "kbet", "kbet_p_values", "label_silhouette", "lisi", "lisi_of_neighbors"]

_MOST_SILHOUETTES = 5000
_ALPHA = 0.05


def lisi(
    features: np.ndarray,
    batches: np.ndarray,
    units: np.ndarray,
    *,
    k: int = 90,
    n_queries: int = 2000,
    seed: int = 0,
) -> Score:
    """Compute how many batches are among the neighbours of a cell: the inverse Simpson index, scaled to 0 to 1.

    About 4 s for 100,000 cells of 128 features; neighbours are exact.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
        Compared by Euclidean distance.
    batches : ndarray, shape (N,)
        Experiment (iLISI, higher is mixed) or label (cLISI, lower is apart) per cell.
    units : ndarray, shape (N,)
        Lineage per cell; neighbours come from others.
    k : int, default 90
        Neighbours, fewer where there are not so many; the perplexity of their weights is a third of it.
    n_queries : int, default 2000
        Cells whose neighbourhood is looked at, drawn evenly at random.
    seed : int, default 0

    Returns
    -------
    Score
        Mean over cells of (LISI - 1) / (number of batches - 1): 0 a single batch, 1 all of them equally. Chance is what
        neighbours of such weights give that are drawn from all cells. Missing with a single batch or fewer than 3
        neighbours.
    """
    found = _neighborhoods(features, batches, units, k, n_queries, seed)
    if isinstance(found, str):
        return Score.missing(found)
    queries, near, distances, shares = found
    most, same = len(shares) - 1, np.sum(shares**2)
    values = (lisi_of_neighbors(distances, near, near.shape[1] // 3) - 1) / most
    # Two neighbours are of one batch if they are the same one, or by the shares.
    itself = (_weights(distances, near.shape[1] // 3) ** 2).sum(axis=1)
    chance = np.mean(1 / (same + (1 - same) * itself) - 1) / most
    note = f"{near.shape[1]} neighbours of other lineages"
    return Score(*mean_by_unit(values, units[queries], seed), float(chance), note, len(queries))


def _neighborhoods(
    features: np.ndarray, batches: np.ndarray, units: np.ndarray, k: int, n_queries: int, seed: int
) -> str | tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return queries (Q,), batch numbers and distances of their neighbours (Q, k), and the share of each batch."""
    codes = np.unique(batches, return_inverse=True)[1]
    n_others = len(codes) - int(np.bincount(np.unique(units, return_inverse=True)[1]).max())
    k = min(k, n_others // 2)
    if codes.max() == 0:
        return "a single batch"
    if k < 3:
        return "too few cells of other lineages"
    queries = draw_rows(len(codes), n_queries, seed)
    rows, distances = nearest_rows(features, queries, k, groups=units)
    return queries, codes[rows], distances, np.bincount(codes) / len(codes)


def lisi_of_neighbors(distances: np.ndarray, batches: np.ndarray, perplexity: float) -> np.ndarray:
    r"""Compute the inverse Simpson index of each cell.

    Parameters
    ----------
    distances : ndarray of float, shape (Q, k)
        Of the neighbours.
    batches : ndarray of int, shape (Q, k)
        Number of the batch of each neighbour, from 0 on.
    perplexity : float
        Weights :math:`p_j \propto \exp(-\beta d_j)` have the entropy :math:`\log` of it, less than k.

    Returns
    -------
    ndarray of float64, shape (Q,)
        :math:`1 / \sum_b (\sum_{j \in b} p_j)^2`, 1 to the number of batches.
    """
    weights = _weights(distances, perplexity)
    totals = np.stack([np.where(batches == each, weights, 0).sum(axis=1) for each in range(batches.max() + 1)])
    return 1 / np.sum(totals**2, axis=0)


def _weights(distances: np.ndarray, perplexity: float) -> np.ndarray:
    """Find weights of an entropy by bisection, all rows at once."""
    apart = np.asarray(distances, dtype=np.float64)
    apart = apart - apart.min(axis=1, keepdims=True)
    scale = apart.mean(axis=1, keepdims=True)
    apart = apart / np.where(scale > 0, scale, 1)  # so that one bracket holds for every row
    low, high = np.full(len(apart), -20.0), np.full(len(apart), 20.0)  # exponents of the steepness
    for _ in range(60):
        middle = (low + high) / 2
        weights = np.exp(-apart * np.exp(middle)[:, None])
        weights /= weights.sum(axis=1, keepdims=True)
        logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
        too_flat = -np.sum(weights * logs, axis=1) > np.log(perplexity)
        low, high = np.where(too_flat, middle, low), np.where(too_flat, high, middle)
    return weights


def kbet(
    features: np.ndarray,
    batches: np.ndarray,
    units: np.ndarray,
    *,
    k: int = 50,
    n_queries: int = 2000,
    seed: int = 0,
) -> Score:
    """Compute the share of neighbourhoods that hold batches as all cells do, by a chi-squared test at 5 %.

    About 4 s for 100,000 cells of 128 features.

    Parameters
    ----------
    features, batches, units, n_queries, seed
        As for :func:`lisi`.
    k : int, default 50
        Neighbours. More find smaller differences.

    Returns
    -------
    Score
        Acceptance rate, 0 to 1, higher is mixed; chance is 0.95. Neighbours of one lineage are alike, so that even
        mixed batches are accepted less often than chance: compare embeddings of the same cells.
    """
    found = _neighborhoods(features, batches, units, k, n_queries, seed)
    if isinstance(found, str):
        return Score.missing(found)
    queries, near, _, shares = found
    accepted = (kbet_p_values(near, shares) >= _ALPHA).astype(float)
    note = f"{near.shape[1]} neighbours of other lineages"
    return Score(*mean_by_unit(accepted, units[queries], seed), 1 - _ALPHA, note, len(queries))


def kbet_p_values(batches: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Test the batches of neighbours (Q, k) against shares (B,) of all cells: p of Pearson's chi-squared, (Q,)."""
    observed = np.stack([(batches == each).sum(axis=1) for each in range(len(shares))], axis=1)
    expected = shares * batches.shape[1]
    return chi2.sf(((observed - expected) ** 2 / expected).sum(axis=1), len(shares) - 1)


def label_silhouette(features: np.ndarray, labels: np.ndarray, units: np.ndarray, *, seed: int = 0) -> Score:
    """Compute the average silhouette width of labels, scaled to 0 to 1.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
        At most 5000 cells are looked at, drawn evenly at random, in about a second.
    labels, units : ndarray, shape (N,)
        Label and lineage per cell.
    seed : int, default 0

    Returns
    -------
    Score
        Mean of (s + 1) / 2, 0.5 where labels are unrelated to features, higher is apart. Missing with a single label.
    """
    rows = draw_rows(len(labels), _MOST_SILHOUETTES, seed)
    codes = np.unique(np.asarray(labels)[rows], return_inverse=True)[1]
    if not 1 < codes.max() + 1 < len(rows):
        return Score.missing("a single label")
    values = (silhouette_samples(np.asarray(features)[rows], codes) + 1) / 2
    return Score(*mean_by_unit(values, np.asarray(units)[rows], seed), 0.5, n_cells=len(rows))


def batch_silhouette(
    features: np.ndarray, labels: np.ndarray, batches: np.ndarray, units: np.ndarray, *, seed: int = 0
) -> Score:
    """Compute the average silhouette width of batches among cells of one label, scaled so that 1 is mixed.

    Parameters
    ----------
    features, labels, units, seed
        As for :func:`label_silhouette`.
    batches : ndarray, shape (N,)

    Returns
    -------
    Score
        Mean over labels of the mean of 1 - abs(s). Labels of a single batch do not count. Missing without any other;
        chance is about 1.
    """
    rows = draw_rows(len(labels), _MOST_SILHOUETTES, seed)
    features, labels, batches = np.asarray(features)[rows], np.asarray(labels)[rows], np.asarray(batches)[rows]
    values, weights = np.full(len(rows), np.nan), np.zeros(len(rows))
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        codes = np.unique(batches[own], return_inverse=True)[1]
        if 1 < codes.max() + 1 < len(own):
            values[own] = 1 - np.abs(silhouette_samples(features[own], codes))
            weights[own] = 1 / len(own)
    known = weights > 0
    if not known.any():
        return Score.missing("no label is in several batches")
    mean = mean_by_unit(values[known], np.asarray(units)[rows][known], seed, weights[known])
    return Score(*mean, 1.0, n_cells=int(known.sum()))
