"""How well a label can be read off an embedding, on cells of experiments or FOVs that the reader has not seen.

Cells of one track look alike, so a split over cells lets a classifier recognise tracks instead of states: it scores
far above chance even on labels that are random per track. Every split here is over whole groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.base import ClassifierMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from viscy_utils.evaluation.labels import is_missing

__all__ = ["Score", "experiment_separability", "linear_probe", "score_predictions"]


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

    @property
    def is_informative(self) -> bool:
        """Whether the interval lies above chance."""
        return self.low > self.chance


def linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    units: np.ndarray,
    *,
    test: np.ndarray | None = None,
    first: TransformerMixin | None = None,
    seed: int = 0,
) -> Score:
    """Balanced accuracy of a logistic regression on frozen features.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
        One row per cell.
    labels : ndarray, shape (N,)
        Class per cell. Cells without one (`viscy_utils.evaluation.labels.is_missing`) are left out, as the note says.
    groups : ndarray, shape (N,)
        FOV or experiment per cell; a group is never on both sides of a split.
    units : ndarray, shape (N,)
        Independent unit per cell (its lineage), resampled for the interval.
    test : ndarray of bool, shape (N,), optional
        Cells to score; the others train. Without it, cross-validation over ``groups`` in up to 5 folds.
    first : TransformerMixin, optional
        Step before the scaler, fitted on training cells as the rest is
        (`viscy_utils.evaluation.corrected_folds.FoldCorrection`).
    seed : int, default 0
        Of the folds and the bootstrap.

    Returns
    -------
    Score
        Chance is 1 / number of classes. Missing when a side has a single class or there is a single group.

    Raises
    ------
    ValueError
        If a lineage is on both sides of the split: the probe would recognise lineages instead of states.
    """
    missing = is_missing(labels)
    kept = np.flatnonzero(~missing)
    features, groups, units = features[kept], np.asarray(groups)[kept], np.asarray(units)[kept]
    labels = np.asarray(labels, dtype=object)[kept].astype(str)
    left_out = f"{missing.sum()} cells without a label left out" if missing.any() else ""
    own = [StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced")]
    classifier = make_pipeline(*_steps(first), *own)
    if test is None:
        return _cross_validated(classifier, features, labels, groups, units, seed, left_out)
    test = np.asarray(test, dtype=bool)[kept]
    _check_apart(units, test)
    if len(np.unique(labels[~test])) < 2 or len(np.unique(labels[test])) < 2:
        return Score.missing("a single class on one side of the split")
    predicted = classifier.fit(features[~test], labels[~test]).predict(features[test])
    unseen = [f"'{name}' is only among the held-out cells" for name in np.setdiff1d(labels[test], labels[~test])]
    return score_predictions(
        labels[test], predicted, units[test], seed, "trained on the other experiments", *unseen, left_out
    )


def _steps(first: TransformerMixin | None) -> list[TransformerMixin]:
    return [] if first is None else [first]


def _check_apart(units: np.ndarray, test: np.ndarray) -> None:
    shared = np.intersect1d(units[test], units[~test])
    if len(shared):
        raise ValueError(
            f"{len(shared)} of {len(np.unique(units))} lineages are on both sides of the split, such as {shared[0]}: "
            "hold out whole experiments, FOVs or lineages"
        )


def experiment_separability(
    features: np.ndarray,
    experiments: np.ndarray,
    groups: np.ndarray,
    units: np.ndarray,
    *,
    n_neighbors: int = 15,
    first: TransformerMixin | None = None,
    seed: int = 0,
) -> Score:
    """Balanced accuracy with which a cell's neighbours tell its experiment: lower is better mixed.

    The neighbours come from other FOVs than the cell. Mixing alone can be had by destroying biology: read it beside
    :func:`linear_probe`.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
        Compared by cosine distance.
    experiments, groups, units : ndarray, shape (N,)
        Experiment, FOV and lineage per cell.
    n_neighbors : int, default 15
        Size of the neighbourhood.
    first : TransformerMixin, optional
        Step before all others, as in :func:`linear_probe`.
    seed : int, default 0
        Of the bootstrap.

    Returns
    -------
    Score
        Chance is 1 / number of experiments. Missing with a single experiment.
    """
    # Centred without the cells that are told: a mean over all of them would know of the held-out FOVs.
    own = [StandardScaler(with_std=False), KNeighborsClassifier(n_neighbors, metric="cosine")]
    classifier = make_pipeline(*_steps(first), *own)
    return _cross_validated(classifier, features, np.asarray(experiments).astype(str), groups, units, seed)


def _cross_validated(
    classifier: ClassifierMixin,
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    units: np.ndarray,
    seed: int,
    left_out: str = "",
) -> Score:
    """Score the predictions of folds over whole groups, stratified by class."""
    _check_within(units, groups)
    if len(np.unique(labels)) < 2:
        return Score.missing("a single class")
    # A class needs groups on both sides of each split: as many folds as the class with the fewest groups allows.
    n_folds = min(5, *(len(np.unique(groups[labels == label])) for label in np.unique(labels)))
    if n_folds < 2:
        return Score.missing("a class that lives in a single FOV")
    splits = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    predicted = cross_val_predict(classifier, features, labels, cv=splits, groups=groups)
    return score_predictions(labels, predicted, units, seed, f"{n_folds} folds over FOVs", left_out)


def _check_within(units: np.ndarray, groups: np.ndarray) -> None:
    pairs = np.unique(np.stack([np.unique(each, return_inverse=True)[1] for each in (units, groups)]), axis=1)
    n_split = int((np.bincount(pairs[0]) > 1).sum())
    if n_split:
        raise ValueError(f"{n_split} lineages are in several groups, so that folds over groups would divide them")


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
    classes = np.unique(labels)
    value = np.mean([np.mean(predicted[labels == label] == label) for label in classes])
    low, high = _bootstrap(labels, predicted, units, np.random.default_rng(seed))
    return Score(float(value), low, high, 1 / len(classes), ", ".join(filter(None, notes)), len(labels))


def _bootstrap(
    labels: np.ndarray, predicted: np.ndarray, units: np.ndarray, rng: np.random.Generator, n_draws: int = 500
) -> tuple[float, float]:
    """Interval of the balanced accuracy when whole units are drawn with replacement."""
    classes, label_codes = np.unique(labels, return_inverse=True)
    units = np.unique(units, return_inverse=True)[1]
    shape = (units.max() + 1, len(classes))
    hits, totals = np.zeros(shape), np.zeros(shape)
    np.add.at(hits, (units, label_codes), labels == predicted)
    np.add.at(totals, (units, label_codes), 1)
    weights = rng.multinomial(shape[0], np.full(shape[0], 1 / shape[0]), size=n_draws)
    with np.errstate(invalid="ignore"):
        draws = np.nanmean((weights @ hits) / (weights @ totals), axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
