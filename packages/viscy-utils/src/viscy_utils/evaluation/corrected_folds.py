"""Probes of embedded cells; corrections are a step of them, fitted on the controls of training cells alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from viscy_data.errors import InputError
from viscy_data.optional import from_extra
from viscy_utils.evaluation.correction import Correction, Method, fit_correction
from viscy_utils.evaluation.embedded import Embedded, Refit
from viscy_utils.evaluation.probe import probe_scores, separability_scores
from viscy_utils.evaluation.scores import ProbeScores

with from_extra("eval", package="viscy-utils"):
    from sklearn.base import BaseEstimator, TransformerMixin

__all__ = ["FoldCorrection", "corrected", "in_folds", "probe_cells", "separability_of_cells"]

_NO_CONTROLS = "an experiment whose controls are in a single FOV"
_EXTRA = 2  # columns behind the features: group, control


class FoldCorrection(TransformerMixin, BaseEstimator):
    """Fit a correction on the controls among training cells, and correct cells.

    Parameters
    ----------
    method : {"center", "standardize", "tvn", "lot"}
        See `viscy_utils.evaluation.correction.fit_correction`.

    Attributes
    ----------
    correction_ : Correction
        After `fit`.
    """

    def __init__(self, method: Method = "center") -> None:
        self.method = method

    @staticmethod
    def pack(features: np.ndarray, groups: np.ndarray, controls: np.ndarray) -> np.ndarray:
        """Put what the step needs beside the features: (N, F) -> (N, F + 2), float64."""
        codes = np.unique(groups, return_inverse=True)[1]
        return np.column_stack([features, codes, controls]).astype(np.float64)

    def fit(self, X: np.ndarray, y: object = None) -> FoldCorrection:
        """Fit the controls among packed cells."""
        features, groups, controls = self._unpacked(X)
        self.correction_: Correction = fit_correction(features, groups, controls, self.method)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Correct packed cells: (N, F + 2) -> (N, F), float32."""
        features, groups, _ = self._unpacked(X)
        return self.correction_.apply(features, groups)

    @staticmethod
    def _unpacked(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return X[:, :-_EXTRA], X[:, -_EXTRA].astype(int).astype(str), X[:, -1].astype(bool)


def corrected(cells: Embedded, controls: np.ndarray, method: Method) -> Embedded:
    """Return cells whose features are corrected by experiment, for pictures on all controls.

    Parameters
    ----------
    cells : Embedded
    controls : ndarray of bool, shape (N,)
        Cells that are alike in all experiments.
    method : {"center", "standardize", "tvn", "lot"}

    Raises
    ------
    InputError
        If an experiment has fewer than two controls.
    """
    experiments = _experiments(cells)
    features = fit_correction(cells.features, experiments, controls, method).apply(cells.features, experiments)
    note = (
        f"corrected ({method}) by {controls.sum()} control cells, anew on the training cells of every probe; "
        "of held-out experiments by half of their controls, which are not scored"
    )
    return replace(
        cells,
        name=f"{cells.name}, {method}",
        features=features,
        notes=(*cells.notes, note),
        layouts={},
        refit=Refit(method, cells.features, controls),
    )


def probe_cells(cells: Embedded, labels: np.ndarray, test: np.ndarray | None, seed: int) -> ProbeScores:
    """Judge a linear probe of embedded cells.

    Parameters
    ----------
    cells : Embedded
    labels : ndarray, shape (N,)
    test : ndarray of bool, shape (N,), optional
        Cells of whole experiments, to be scored; otherwise folds over FOVs.
    seed : int
    """
    units, options = (cells.fovs, cells.lineages), {"experiments": _experiments(cells), "seed": seed}
    if cells.refit is None:
        return probe_scores(cells.features, labels, *units, test=test, **options)
    if test is None:
        packed, step = _packed(cells)
        return in_folds(lambda: probe_scores(packed, labels, *units, first=step, **options))
    try:
        features, scored = _held_out(cells, test, seed)
    except InputError as err:
        return ProbeScores.missing(f"no correction of {err.where}: {err.found}")
    kept = ~test | scored
    own = [each[kept] for each in (features, labels, *units)]
    return probe_scores(*own, test=test[kept], seed=seed)


def separability_of_cells(
    cells: Embedded, seed: int, judge: Callable[..., ProbeScores] = separability_scores
) -> ProbeScores:
    """Judge how well the experiment of embedded cells is told, by folds that are balanced over conditions.

    Parameters
    ----------
    cells : Embedded
    seed : int
        Of the folds and the bootstrap.
    judge : callable, default `viscy_utils.evaluation.probe.separability_scores`
        Neighbours, or `viscy_utils.evaluation.probe.probe_scores` for a linear probe.
    """
    experiments, units = _experiments(cells), (cells.fovs, cells.lineages)
    conditions = cells.obs["condition"].to_numpy().astype(str) if "condition" in cells.obs else None
    options = {"conditions": conditions, "seed": seed}
    if cells.refit is None:
        return judge(cells.features, experiments, *units, **options)
    packed, step = _packed(cells)
    return in_folds(lambda: judge(packed, experiments, *units, first=step, **options))


def in_folds(judge: Callable[[], ProbeScores]) -> ProbeScores:
    """Judge with a `FoldCorrection`; missing where the training cells of a fold lack controls of an experiment."""
    try:
        return judge()
    except InputError:
        return ProbeScores.missing(_NO_CONTROLS)


def _experiments(cells: Embedded) -> np.ndarray:
    return cells.obs["experiment"].to_numpy().astype(str)


def _packed(cells: Embedded) -> tuple[np.ndarray, FoldCorrection]:
    refit = cells.refit
    return FoldCorrection.pack(refit.features, _experiments(cells), refit.controls), FoldCorrection(refit.method)


def _held_out(cells: Embedded, test: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Correct training cells by their controls, and held-out experiments by half of theirs, whole FOVs or lineages.

    Returns the features and which cells were not used to fit.
    """
    refit, experiments = cells.refit, _experiments(cells)
    train = ~test
    fitted = fit_correction(refit.features[train], experiments[train], refit.controls[train], refit.method)
    used = np.zeros(len(test), dtype=bool)
    rng = np.random.default_rng(seed)
    for name in np.unique(experiments[test]):
        own = test & refit.controls & (experiments == name)
        units = cells.fovs if len(np.unique(cells.fovs[own])) > 1 else cells.lineages
        drawn = rng.permutation(np.unique(units[own]))
        used |= own & np.isin(units, drawn[: max(1, len(drawn) // 2)])
    fitted = fitted.with_groups(refit.features, experiments, refit.controls & (used | train))
    return fitted.apply(refit.features, experiments), ~used
