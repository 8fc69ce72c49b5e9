"""Whether probabilities of classes come true, and the temperature that makes them.

Guo et al., "On calibration of modern neural networks", ICML 2017, for the expected calibration error and the
temperature; Brier, Monthly Weather Review 78 (1950). Cells weigh as in the training: with balanced class weights every
class counts the same, and probabilities are those of equally frequent classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from viscy_data.optional import from_extra

with from_extra("eval", package="viscy-utils"):
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax
    from sklearn.utils.class_weight import compute_sample_weight

__all__ = ["ClassWeight", "brier_score", "calibration_error", "temperature_of"]

ClassWeight = Literal["balanced"] | Mapping[str, float] | None

_N_BINS = 10
_LARGEST = 100.0


def temperature_of(logits: np.ndarray, labels: np.ndarray, classes: np.ndarray, class_weight: ClassWeight) -> float:
    """Find the temperature by which to divide logits so that labels are most likely.

    A label of which there are n cells counts as true with (n + 1) / (n + 2) (Platt 1999), or cells that are told
    without a mistake would make every probability 1.

    Parameters
    ----------
    logits : ndarray of float, shape (N, K), or (N,) of the second of two classes
        Of cells that the classifier has not seen.
    labels : ndarray, shape (N,)
    classes : ndarray, shape (K,)
        In the order of the logits, sorted.
    class_weight : {"balanced"}, mapping or None
        As in the training.

    Returns
    -------
    float
        1/100 to 100; above 1 where the classifier was too sure of itself.
    """
    both = np.column_stack([np.zeros(len(logits)), logits]) if logits.ndim == 1 else logits
    right, weights = np.searchsorted(classes, labels), compute_sample_weight(class_weight, labels)
    doubt = 1 / (np.bincount(right, minlength=len(classes))[right] + 2)
    rows = np.arange(len(right))

    def loss(log_temperature: float) -> float:
        likely = log_softmax(both / np.exp(log_temperature), axis=1)
        own = likely[rows, right]
        others = (likely.sum(axis=1) - own) / (len(classes) - 1)
        return float(-np.average((1 - doubt) * own + doubt * others, weights=weights))

    end = np.log(_LARGEST)
    return float(np.exp(minimize_scalar(loss, bounds=(-end, end), method="bounded").x))


def calibration_error(
    shares: np.ndarray, labels: np.ndarray, classes: np.ndarray, class_weight: ClassWeight = None
) -> float:
    """Compute the expected calibration error: how far the probability of the predicted class is from its accuracy.

    Parameters
    ----------
    shares : ndarray of float, shape (N, K)
        Probabilities.
    labels : ndarray, shape (N,)
    classes : ndarray, shape (K,)
    class_weight : {"balanced"}, mapping or None, default None

    Returns
    -------
    float
        0 to 1: mean over ten equal bins of probability, by the weight of their cells.
    """
    weights = compute_sample_weight(class_weight, labels)
    sure, right = shares.max(axis=1), classes[shares.argmax(axis=1)] == labels
    bins = np.minimum((sure * _N_BINS).astype(int), _N_BINS - 1)
    gaps = np.bincount(bins, weights * (right - sure), minlength=_N_BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def brier_score(shares: np.ndarray, labels: np.ndarray, classes: np.ndarray, class_weight: ClassWeight = None) -> float:
    """Compute the mean squared distance of probabilities from the truth, 0 to 2; arguments as above."""
    truth = labels[:, None] == classes
    return float(np.average(((shares - truth) ** 2).sum(axis=1), weights=compute_sample_weight(class_weight, labels)))
