"""How embeddings fill their space: what is worth knowing without any label."""

from __future__ import annotations

import numpy as np

__all__ = ["alignment", "effective_rank", "spread", "uniformity"]


def effective_rank(features: np.ndarray) -> float:
    r"""Compute how many directions the features use.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
        A singular value decomposition: 1 s for 10,000 rows of 768.

    Returns
    -------
    float
        :math:`\exp(-\sum p_i \log p_i)` of the shares of the singular values of the centred features, 1 to F; 1 where
        all rows are equal. Roy and Vetterli, EUSIPCO 2007.
    """
    rows = np.asarray(features, dtype=np.float64)
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    # What rounding makes of equal rows is no direction.
    values = values[values > 1e-7 * max(float(np.linalg.norm(rows)), np.finfo(float).tiny)]
    shares = values / values.sum() if len(values) else np.ones(1)
    return float(np.exp(-np.sum(shares * np.log(shares))))


def spread(features: np.ndarray) -> float:
    """Return the share of the mean squared length that is around the mean, 0 (one point) to 1."""
    rows = np.asarray(features, dtype=np.float64)
    length = np.mean(np.sum(rows**2, axis=1))
    return float(np.sum(rows.var(axis=0)) / length) if length else 0.0


def alignment(anchors: np.ndarray, positives: np.ndarray) -> float:
    """Return the mean squared distance of positive pairs on the unit sphere, 0 to 4; lower is closer.

    Parameters
    ----------
    anchors, positives : ndarray of float, shape (N, P)

    Notes
    -----
    Wang and Isola, "Understanding contrastive representation learning", ICML 2020, arXiv:2005.10242.
    """
    return float(np.mean(np.sum((_unit(anchors) - _unit(positives)) ** 2, axis=1)))


def uniformity(embeddings: np.ndarray) -> float:
    """Return the logarithm of the mean of exp(-2 d^2) over pairs on the unit sphere (Wang and Isola 2020).

    Parameters
    ----------
    embeddings : ndarray of float, shape (N, P)
        At least two rows; costs N^2.

    Returns
    -------
    float
        0 where all rows point in one direction, lower is more uniform, about -4 at the lowest.
    """
    unit = _unit(embeddings)
    first, second = np.triu_indices(len(unit), k=1)
    cosine = (unit @ unit.T)[first, second]
    return float(np.log(np.mean(np.exp(-4 * (1 - cosine)))))


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
