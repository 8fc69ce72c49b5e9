"""Folds over whole groups that are balanced, so that what a probe is not asked for tells it nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from viscy_data.optional import from_extra

with from_extra("eval", package="viscy-utils"):
    from sklearn.model_selection import StratifiedGroupKFold

__all__ = ["ONE_FOV", "Folds", "balanced_folds", "experiment_folds", "label_folds"]

ONE_FOV = "not reliable: a condition of an experiment has a single FOV, whose own look is taken for the experiment's"
"""Note of a score of how the experiment is told, where no FOV of a condition of one is left to train on."""


@dataclass(frozen=True)
class Folds:
    """How cells are divided for a cross-validation.

    Parameters
    ----------
    strata, groups : ndarray, shape (N,)
        What each fold has its share of, and what is never on both sides.
    number : int
        Below 2 where there is no such division.
    notes : tuple of str
        In words.
    """

    strata: np.ndarray
    groups: np.ndarray
    number: int
    notes: tuple[str, ...]

    def split(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows to train on and the rows to score."""
        splits = StratifiedGroupKFold(self.number, shuffle=True, random_state=seed)
        yield from splits.split(self.strata, self.strata, self.groups)


def balanced_folds(labels: np.ndarray, groups: np.ndarray, others: np.ndarray | None = None, most: int = 5) -> Folds:
    """Leave out as many groups of every pair of a label and another column, where each pair has two or more.

    Parameters
    ----------
    labels, groups : ndarray, shape (N,)
    others : ndarray, shape (N,), optional
        Where a pair lives in a single group, folds are stratified by the labels alone.
    most : int, default 5
        Folds.
    """
    if others is not None:
        strata = _joined(labels, others)
        if (number := _number(strata, groups, most)) > 1:
            return Folds(strata, groups, number, (f"{number} folds over FOVs",))
    number = _number(labels, groups, most)
    return Folds(labels, groups, number, (f"{number} folds over FOVs",))


def experiment_folds(
    experiments: np.ndarray, groups: np.ndarray, conditions: np.ndarray | None = None, most: int = 5
) -> Folds:
    """Divide cells to tell their experiment; where a condition of one has a single FOV, the notes say :data:`ONE_FOV`.

    Parameters
    ----------
    experiments, groups : ndarray, shape (N,)
        Experiment and FOV per cell.
    conditions : ndarray, shape (N,), optional
        As for the `others` of :func:`balanced_folds`.
    most : int, default 5
        Folds.
    """
    folds = balanced_folds(experiments, groups, conditions, most)
    pairs = experiments if conditions is None else _joined(experiments, conditions)
    return replace(folds, notes=(*folds.notes, ONE_FOV)) if _number(pairs, groups, most) < 2 else folds


def label_folds(labels: np.ndarray, groups: np.ndarray, experiments: np.ndarray | None = None, most: int = 5) -> Folds:
    """Divide cells so that the experiment says nothing of the label, for labels of whole FOVs such as conditions.

    A fold that leaves out the only infected FOV of an experiment trains on its uninfected ones: a probe that knows the
    experiment alone would call the infected ones uninfected, and come out below chance. So equally many FOVs of every
    label of every experiment are left out, or whole experiments where a label of one is in a single FOV.

    Parameters
    ----------
    labels, groups : ndarray, shape (N,)
        Label and FOV per cell. Labels that differ within FOVs are stratified by themselves.
    experiments : ndarray, shape (N,), optional
    most : int, default 5
        Folds.
    """
    if experiments is None or len(np.unique(experiments)) < 2 or not _is_constant(labels, groups):
        return balanced_folds(labels, groups, most=most)
    n_experiments = {name: len(np.unique(experiments[labels == name])) for name in np.unique(labels)}
    alone = [str(name) for name, count in n_experiments.items() if count == 1]
    if not alone and _number(_joined(labels, experiments), groups, most) < 2:
        number = min(most, len(np.unique(experiments)))
        return Folds(experiments, experiments, number, (f"{number} folds over experiments",))
    folds = balanced_folds(labels, groups, experiments, most)
    told = f"labels of a single experiment, which may be what is told: {', '.join(alone)}"
    return replace(folds, notes=(*folds.notes, told)) if alone else folds


def _number(strata: np.ndarray, groups: np.ndarray, most: int) -> int:
    """As many as leave groups of each stratum on both sides of each split."""
    return min(most, *(len(np.unique(groups[strata == name])) for name in np.unique(strata)))


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return a number for each pair of two columns."""
    return np.unique(np.stack([_codes(first), _codes(second)]), axis=1, return_inverse=True)[1].ravel()


def _is_constant(labels: np.ndarray, groups: np.ndarray) -> bool:
    return len(np.unique(_joined(labels, groups))) == len(np.unique(groups))


def _codes(column: np.ndarray) -> np.ndarray:
    return np.unique(np.asarray(column).astype(str), return_inverse=True)[1]
