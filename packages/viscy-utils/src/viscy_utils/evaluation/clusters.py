"""Clusters that are found without labels, against labels and experiments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from viscy_utils.evaluation.draws import draw_rows
from viscy_utils.evaluation.intervals import draw_units, mean_by_unit, percentile_interval
from viscy_utils.evaluation.scores import Score

__all__ = ["ClusterScores", "adjusted_rand", "cluster_scores", "normalized_information"]

_MOST_CELLS = 5000  # all pairs of them are compared
_N_SHIFTS = 100


@dataclass(frozen=True)
class ClusterScores:
    """How clear clusters are, and what they are of.

    Attributes
    ----------
    silhouette : Score
        Mean silhouette of the cells (Rousseeuw 1987), -1 to 1; chance is that of clusters of normally distributed cells
        of the same covariance, among which there are none.
    label_nmi, label_ari, experiment_nmi, experiment_ari : Score
        Normalised mutual information (Strehl and Ghosh 2002) and adjusted Rand index (Hubert and Arabie 1985) with
        labels and experiments; chance is their mean when the labels of whole lineages are laid on other cells.
    """

    silhouette: Score
    label_nmi: Score
    label_ari: Score
    experiment_nmi: Score
    experiment_ari: Score


def cluster_scores(
    features: np.ndarray, labels: np.ndarray, experiments: np.ndarray, units: np.ndarray, *, seed: int = 0
) -> ClusterScores:
    """Cluster cells by k-means, as many clusters as labels, and compare.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
        Of more than 5000 cells so many are drawn.
    labels, experiments : ndarray, shape (N,)
    units : ndarray, shape (N,)
        Lineage per cell, for the intervals.
    seed : int, default 0
    """
    from sklearn.metrics import silhouette_samples

    rows = draw_rows(len(features), _MOST_CELLS, seed)
    features, units = np.asarray(features, np.float64)[rows], units[rows]
    labels, experiments = labels[rows], experiments[rows]
    n_clusters = len(np.unique(labels))
    if n_clusters < 2 or len(np.unique(features, axis=0)) <= n_clusters:
        missing = Score.missing("a single label" if n_clusters < 2 else "no more different cells than labels")
        return ClusterScores(*[missing] * 5)
    found = _cluster(features, n_clusters, seed)
    without = _structureless(features, seed)
    chance = float(silhouette_samples(without, _cluster(without, n_clusters, seed)).mean())
    note = f"{n_clusters} clusters by k-means"
    shape = mean_by_unit(silhouette_samples(features, found), units, seed)
    silhouette = Score(*shape, chance, note, len(rows))
    return ClusterScores(
        silhouette, *_agreement(found, labels, units, seed, note), *_agreement(found, experiments, units, seed, note)
    )


def _cluster(features: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(n_clusters, n_init=5, random_state=seed).fit_predict(features)


def _structureless(features: np.ndarray, seed: int) -> np.ndarray:
    """Draw normally distributed rows of the covariance of the features."""
    values, axes = np.linalg.eigh(np.cov(features, rowvar=False).reshape([features.shape[1]] * 2))
    normal = np.random.default_rng(seed).normal(size=features.shape)
    return normal * np.sqrt(np.maximum(values, 0)) @ axes.T


def _agreement(clusters: np.ndarray, labels: np.ndarray, units: np.ndarray, seed: int, note: str) -> list[Score]:
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return [Score.missing("a single one")] * 2
    unit_codes, weights = draw_units(units, seed)
    counts = np.zeros((weights.shape[1], clusters.max() + 1, len(classes)))
    np.add.at(counts, (unit_codes, clusters, codes), 1)
    drawn = np.tensordot(weights.astype(float), counts, axes=1)
    shifted = np.zeros((_N_SHIFTS, *counts.shape[1:]))
    rng, own = np.random.default_rng(seed), np.argsort(unit_codes, kind="stable")
    for table in shifted:
        other = np.argsort(rng.permutation(weights.shape[1])[unit_codes], kind="stable")
        np.add.at(table, (clusters[own], np.roll(codes[other], rng.integers(len(codes)))), 1)
    scores = []
    for measure in (normalized_information, adjusted_rand):
        value = float(measure(counts.sum(axis=0)[None])[0])
        interval = percentile_interval(measure(drawn))
        scores.append(Score(value, *interval, float(measure(shifted).mean()), note, len(codes)))
    return scores


def normalized_information(counts: np.ndarray) -> np.ndarray:
    """Compute the normalised mutual information of contingency tables: over the mean of both entropies, 0 to 1.

    Parameters
    ----------
    counts : ndarray of float, shape (D, K, L)

    Returns
    -------
    ndarray of float64, shape (D,)
        0 where both have a single class.
    """
    shares = counts / counts.sum(axis=(1, 2), keepdims=True)
    both, first, second = (_entropy(each) for each in (shares.reshape(len(shares), -1), shares.sum(2), shares.sum(1)))
    mean = (first + second) / 2
    return np.divide(first + second - both, mean, out=np.zeros_like(mean), where=mean > 0)


def _entropy(shares: np.ndarray) -> np.ndarray:
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)


def adjusted_rand(counts: np.ndarray) -> np.ndarray:
    """Compute the adjusted Rand index of contingency tables (D, K, L): 1 equal, 0 unrelated, also below."""
    pairs, first, second, every = (
        (each * (each - 1) / 2).sum(axis=1)
        for each in (
            counts.reshape(len(counts), -1),
            counts.sum(axis=2),
            counts.sum(axis=1),
            counts.sum(axis=(1, 2))[:, None],
        )
    )
    expected, most = first * second / every, (first + second) / 2
    return np.divide(pairs - expected, most - expected, out=np.ones_like(most), where=most != expected)
