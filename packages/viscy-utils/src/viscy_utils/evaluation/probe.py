"""How well a label can be read off an embedding, on cells of experiments or FOVs that the reader has not seen.

Cells of one track look alike, so a split over cells lets a classifier recognise tracks instead of states: it scores
far above chance even on labels that are random per track. Every split here is over whole groups.
"""

from __future__ import annotations

import numpy as np

from viscy_data.optional import from_extra
from viscy_utils.evaluation.folds import Folds, experiment_folds, label_folds
from viscy_utils.evaluation.labels import is_missing
from viscy_utils.evaluation.scores import ProbeScores, Score, score_predictions, score_shares

with from_extra("eval", package="viscy-utils"):
    from sklearn.base import ClassifierMixin, TransformerMixin, clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

__all__ = [
    "Score",
    "experiment_separability",
    "linear_probe",
    "probe_scores",
    "score_predictions",
    "separability_scores",
]


def linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    units: np.ndarray,
    *,
    test: np.ndarray | None = None,
    first: TransformerMixin | None = None,
    conditions: np.ndarray | None = None,
    experiments: np.ndarray | None = None,
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
    conditions : ndarray, shape (N,), optional
        Condition per cell, the same for all cells of a group, where the label is the experiment: each fold then leaves
        out equally many groups of every condition of every experiment, where each has two or more. Otherwise the groups
        left out are missing among cells of their own condition, and features that know the condition alone point away
        from the experiment: below chance. No part in a split by ``test``.
    experiments : ndarray, shape (N,), optional
        Experiment per cell, where the label is another: folds by which it says nothing of the label
        (`viscy_utils.evaluation.folds.label_folds`). No part in a split by ``test``.
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
    options = {"test": test, "first": first, "conditions": conditions, "experiments": experiments, "seed": seed}
    return probe_scores(features, labels, groups, units, **options).balanced_accuracy


def probe_scores(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    units: np.ndarray,
    *,
    test: np.ndarray | None = None,
    first: TransformerMixin | None = None,
    conditions: np.ndarray | None = None,
    experiments: np.ndarray | None = None,
    seed: int = 0,
) -> ProbeScores:
    """Judge a logistic regression on frozen features: the arguments and errors of :func:`linear_probe`.

    Costs some seconds for 20,000 cells of 128 features, and grows in proportion.
    """
    missing = is_missing(labels)
    kept = np.flatnonzero(~missing)
    features, groups, units = features[kept], np.asarray(groups)[kept], np.asarray(units)[kept]
    labels = np.asarray(labels, dtype=object)[kept].astype(str)
    left_out = f"{missing.sum()} cells without a label left out" if missing.any() else ""
    own = [StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced")]
    classifier = make_pipeline(*_steps(first), *own)
    if test is None:
        _check_within(units, groups)
        others = [None if each is None else np.asarray(each)[kept] for each in (conditions, experiments)]
        by_condition, by_experiment = others
        told = experiments is None
        folds = experiment_folds(labels, groups, by_condition) if told else label_folds(labels, groups, by_experiment)
        return _cross_validated(classifier, features, labels, folds, units, seed, left_out)
    test = np.asarray(test, dtype=bool)[kept]
    _check_apart(units, test)
    if len(np.unique(labels[~test])) < 2 or len(np.unique(labels[test])) < 2:
        return ProbeScores.missing("a single class on one side of the split")
    classifier.fit(features[~test], labels[~test])
    classes = np.unique(labels)
    shares = _shares(classifier, features[test], classes)
    unseen = [f"'{name}' is only among the held-out cells" for name in np.setdiff1d(labels[test], labels[~test])]
    notes = ("trained on the other experiments", *unseen, left_out)
    return score_shares(labels[test], shares, classes, units[test], seed, *notes)


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
    conditions: np.ndarray | None = None,
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
    conditions : ndarray, shape (N,), optional
        Condition per cell, by which the folds are balanced as in :func:`linear_probe`.
    seed : int, default 0
        Of the folds and the bootstrap.

    Returns
    -------
    Score
        Chance is 1 / number of experiments. Missing with a single experiment.
    """
    options = {"n_neighbors": n_neighbors, "first": first, "conditions": conditions, "seed": seed}
    return separability_scores(features, experiments, groups, units, **options).balanced_accuracy


def separability_scores(
    features: np.ndarray,
    experiments: np.ndarray,
    groups: np.ndarray,
    units: np.ndarray,
    *,
    n_neighbors: int = 15,
    first: TransformerMixin | None = None,
    conditions: np.ndarray | None = None,
    seed: int = 0,
) -> ProbeScores:
    """Judge how neighbours tell the experiment: the arguments of :func:`experiment_separability`."""
    # Centred without the cells that are told: a mean over all of them would know of the held-out FOVs.
    own = [StandardScaler(with_std=False), KNeighborsClassifier(n_neighbors, metric="cosine")]
    classifier = make_pipeline(*_steps(first), *own)
    labels = np.asarray(experiments).astype(str)
    _check_within(units, groups)
    return _cross_validated(classifier, features, labels, experiment_folds(labels, groups, conditions), units, seed)


def _cross_validated(
    classifier: ClassifierMixin,
    features: np.ndarray,
    labels: np.ndarray,
    folds: Folds,
    units: np.ndarray,
    seed: int,
    left_out: str = "",
) -> ProbeScores:
    """Score the predictions of folds over whole groups."""
    classes = np.unique(labels)
    if len(classes) < 2:
        return ProbeScores.missing("a single class")
    if folds.number < 2:
        return ProbeScores.missing("a class that lives in a single FOV")
    shares = np.empty((len(labels), len(classes)))
    for train, test in folds.split(seed):
        shares[test] = _shares(clone(classifier).fit(features[train], labels[train]), features[test], classes)
    return score_shares(labels, shares, classes, units, seed, *folds.notes, left_out)


def _shares(classifier: ClassifierMixin, features: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Predict the probability of each class, 0 for those that the classifier has not seen."""
    shares = np.zeros((len(features), len(classes)))
    shares[:, np.searchsorted(classes, classifier.classes_)] = classifier.predict_proba(features)
    return shares


def _check_within(units: np.ndarray, groups: np.ndarray) -> None:
    pairs = np.unique(np.stack([np.unique(each, return_inverse=True)[1] for each in (units, groups)]), axis=1)
    n_split = int((np.bincount(pairs[0]) > 1).sum())
    if n_split:
        raise ValueError(f"{n_split} lineages are in several groups, so that folds over groups would divide them")
