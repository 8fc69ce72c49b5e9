"""Scores of predicted classes with what is needed to read them: interval over lineages, chance, note."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from viscy_utils.evaluation.intervals import draw_units, percentile_interval
from viscy_utils.reports.numbers import significant

__all__ = ["ProbeScores", "Score", "score_predictions", "score_shares", "weighted_auroc"]


@dataclass(frozen=True)
class Score:
    """A metric with what is needed to read it.

    Attributes
    ----------
    value : float
        The metric; NaN when it cannot be computed.
    low, high : float
        95 % bootstrap interval over whole units (lineages), not over cells.
    chance : float
        What guessing reaches.
    note : str
        Why there is no value, or how it was split.
    n_cells : int
        Cells that were scored.
    """

    value: float
    low: float
    high: float
    chance: float
    note: str = ""
    n_cells: int = 0

    @classmethod
    def missing(cls, note: str) -> Score:
        """Return a score without a value, with the reason."""
        return cls(np.nan, np.nan, np.nan, np.nan, note)

    def __str__(self) -> str:
        """Write value, interval and chance, the same in tables, pictures and sentences.

        >>> str(Score(0.8125, 0.75, 0.875, 0.5)), str(Score.missing("a single class"))
        ('0.812 [0.750, 0.875], chance 0.5', 'not computed: a single class')
        """
        if np.isnan(self.value):
            return f"not computed: {self.note}"
        interval = "" if np.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        chance = "" if np.isnan(self.chance) else f", chance {significant(self.chance)}"
        return f"{self.value:.3f}{interval}{chance}"

    @property
    def is_informative(self) -> bool:
        """Whether the interval lies above chance."""
        return self.low > self.chance


@dataclass(frozen=True)
class ProbeScores:
    """What a classifier reached on cells that it had not seen.

    Attributes
    ----------
    balanced_accuracy : Score
        Mean of the recalls of the classes; chance is 1 / number of classes.
    macro_f1 : Score
        Mean of the F1 of the classes that occur. Chance is that of guessing every class equally often.
    auroc : Score
        Area under the ROC curve of each class against the others, the mean over the classes; chance is 0.5.
    """

    balanced_accuracy: Score
    macro_f1: Score
    auroc: Score

    @classmethod
    def missing(cls, note: str) -> ProbeScores:
        """Return scores without values, with the reason."""
        return cls(*[Score.missing(note)] * 3)


def score_predictions(labels: np.ndarray, predicted: np.ndarray, units: np.ndarray, seed: int, *notes: str) -> Score:
    """Balanced accuracy of predictions.

    Parameters
    ----------
    labels, predicted : ndarray, shape (N,)
        True and predicted class per cell; classes that occur in ``labels`` count.
    units : ndarray, shape (N,)
        Independent unit per cell, resampled for the interval.
    seed : int
        Of the bootstrap.
    *notes : str
        Joined in the note of the score; empty ones are left out.
    """
    counts, drawn = _class_counts(labels, predicted, units, seed)
    return _balanced_accuracy(counts, drawn, ", ".join(filter(None, notes)))


def score_shares(
    labels: np.ndarray, shares: np.ndarray, classes: np.ndarray, units: np.ndarray, seed: int, *notes: str
) -> ProbeScores:
    """Judge probabilities of classes; the most likely class is the predicted one.

    Parameters
    ----------
    labels : ndarray, shape (N,)
        True class per cell.
    shares : ndarray of float, shape (N, K)
        Probability of each class.
    classes : ndarray, shape (K,)
        Names of the columns.
    units, seed, *notes
        As in :func:`score_predictions`.
    """
    predicted, note = classes[shares.argmax(axis=1)], ", ".join(filter(None, notes))
    counts, drawn = _class_counts(labels, predicted, units, seed)
    accuracy = _balanced_accuracy(counts, drawn, note)
    f1 = _f1(counts[None])
    frequencies, guess = counts[1] / len(labels), 1 / f1.shape[1]
    f1_chance = float(np.mean(2 * frequencies * guess / (frequencies + guess)))
    low_high = percentile_interval(np.nanmean(_f1(drawn), axis=1))
    macro_f1 = Score(float(f1.mean()), *low_high, f1_chance, note, len(labels))
    return ProbeScores(accuracy, macro_f1, _score_auroc(labels, shares, classes, units, seed, note))


def _class_counts(
    labels: np.ndarray, predicted: np.ndarray, units: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count hits, cells and predictions of each class: (3, K) of all cells, and (draws, 3, K) of drawn units."""
    classes, label_codes = np.unique(labels, return_inverse=True)
    codes, weights = draw_units(units, seed)
    by_unit = np.zeros((3, weights.shape[1], len(classes)))
    np.add.at(by_unit[0], (codes, label_codes), labels == predicted)
    np.add.at(by_unit[1], (codes, label_codes), 1)
    known = np.isin(predicted, classes)
    np.add.at(by_unit[2], (codes[known], np.searchsorted(classes, predicted[known])), 1)
    return by_unit.sum(axis=1), np.stack([weights @ each for each in by_unit], axis=1)


def _balanced_accuracy(counts: np.ndarray, drawn: np.ndarray, note: str) -> Score:
    recalls, low_high = _recalls(counts[None]), percentile_interval(np.nanmean(_recalls(drawn), axis=1))
    return Score(float(recalls.mean()), *low_high, 1 / recalls.shape[1], note, int(counts[1].sum()))


def _recalls(counts: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return counts[:, 0] / counts[:, 1]


def _f1(counts: np.ndarray) -> np.ndarray:
    """F1 of each class; NaN for one that was not drawn."""
    with np.errstate(invalid="ignore"):
        return np.where(counts[:, 1] > 0, 2 * counts[:, 0] / (counts[:, 1] + counts[:, 2]), np.nan)


def _score_auroc(
    labels: np.ndarray, shares: np.ndarray, classes: np.ndarray, units: np.ndarray, seed: int, note: str
) -> Score:
    # Of two classes both areas are equal.
    chosen = [number for number, name in enumerate(classes) if 0 < np.sum(labels == name) < len(labels)]
    chosen = chosen[:1] if len(classes) == 2 else chosen
    if not chosen:
        return Score.missing("a single class")
    codes, weights = draw_units(units, seed, n_draws=200)
    ones = np.ones((1, weights.shape[1]))
    both = [weighted_auroc(labels == classes[n], shares[:, n], codes, np.vstack([ones, weights])) for n in chosen]
    areas = np.stack(both)
    drawn = np.array([np.mean(each[~np.isnan(each)]) if not np.isnan(each).all() else np.nan for each in areas.T])
    return Score(float(drawn[0]), *percentile_interval(drawn[1:]), 0.5, note, len(labels))


def weighted_auroc(positive: np.ndarray, scores: np.ndarray, units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the area under the ROC curve for several weightings of units at once; equal scores count half.

    Parameters
    ----------
    positive : ndarray of bool, shape (N,)
    scores : ndarray of float, shape (N,)
    units : ndarray of int, shape (N,)
        Column of ``weights`` per cell.
    weights : ndarray of float, shape (D, U)

    Returns
    -------
    ndarray of float64, shape (D,)
        NaN where one side has no weight. Hanley and McNeil, Radiology 143 (1982).
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    units, positive = units[order], positive[order]
    areas = np.empty(len(weights))
    for number, row in enumerate(weights):
        cells = row[units].astype(np.float64)
        found = np.add.reduceat(cells * positive, starts)
        others = np.add.reduceat(cells * ~positive, starts)
        below = np.cumsum(others) - others
        total = found.sum() * others.sum()
        areas[number] = found @ (below + others / 2) / total if total else np.nan
    return areas
