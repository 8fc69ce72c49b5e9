"""Cross-validation of linear classifiers over whole experiments, FOVs or lineages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from viscy_data.optional import from_extra
from viscy_utils.evaluation.calibration import brier_score, calibration_error
from viscy_utils.evaluation.intervals import draw_units, percentile_interval
from viscy_utils.evaluation.linear_classifier import fit_pipeline
from viscy_utils.evaluation.linear_classifier_split import (
    LabelledCells,
    fewest_groups,
    labelled_cells,
    solver_that_fits,
)
from viscy_utils.evaluation.scores import score_shares, weighted_auroc

with from_extra("eval", package="viscy-utils"):
    import pandas as pd
    from sklearn.model_selection import StratifiedGroupKFold

if TYPE_CHECKING:
    import anndata as ad

__all__ = ["CrossValidation", "GroupedBy", "cross_validate"]

GroupedBy = Literal["experiment", "fov", "lineage"]

_N_DRAWS = 200


@dataclass(frozen=True)
class CrossValidation:
    """What classifiers reached on cells of groups that they had not seen.

    Attributes
    ----------
    summary : DataFrame
        Index ``metric``: balanced accuracy, macro-F1, AUROC, calibration error and Brier score over all held-out cells,
        with ``value``, 95 % interval over lineages ``low`` and ``high`` (NaN for the last two) and ``chance``.
    classes : DataFrame
        Index ``class``: ``n_cells``, ``n_lineages``, and ``precision``, ``recall``, ``f1`` and ``auroc`` (against all
        others), each with ``_low`` and ``_high``.
    folds : DataFrame
        Index ``fold``: ``held_out``, the number of groups, ``n_train``, ``n_test`` and ``balanced_accuracy``.
    split_by : str
    """

    summary: pd.DataFrame
    classes: pd.DataFrame
    folds: pd.DataFrame
    split_by: str


def cross_validate(
    adata: ad.AnnData,
    task: str,
    *,
    by: GroupedBy = "fov",
    n_folds: int = 5,
    use_scaling: bool = True,
    n_pca_components: int | None = None,
    classifier_params: Mapping[str, Any] | None = None,
    random_seed: int = 42,
) -> CrossValidation:
    """Train on some groups, predict the others, in turns, until every cell was predicted once.

    Costs ``n_folds`` trainings; some seconds for 20,000 cells of 128 features.

    Parameters
    ----------
    adata : AnnData
        As for `viscy_utils.evaluation.linear_classifier.train_linear_classifier`.
    task : str
        Column to tell.
    by : {"experiment", "fov", "lineage"}, default "fov"
        What is never on both sides. Lineages never are.
    n_folds : int, default 5
        At most; as many as the class with the fewest groups allows.
    use_scaling, n_pca_components
        As for `viscy_utils.evaluation.linear_classifier.fit_pipeline`; fitted in each fold on its training cells.
    classifier_params : mapping, optional
        Of `sklearn.linear_model.LogisticRegression`; balanced class weights and 1000 iterations by default.
    random_seed : int, default 42

    Raises
    ------
    ValueError
        If there are not two classes, or a class lives in a single group.
    """
    cells = labelled_cells(adata, task)
    if len(np.unique(cells.labels)) < 2:
        raise ValueError(f"a classifier needs two classes, found {np.unique(cells.labels).tolist()}")
    groups = {"experiment": cells.experiments, "fov": cells.fovs, "lineage": cells.lineages}[by]
    n_folds = min(n_folds, fewest_groups(groups, cells.labels))
    if n_folds < 2:
        raise ValueError(f"a class lives in a single {by}: divide by a smaller group, or annotate more of it")
    classes = np.unique(cells.labels)
    params = {"max_iter": 1000, "class_weight": "balanced", "random_state": random_seed, **(classifier_params or {})}
    params = solver_that_fits(params, len(classes))
    shares, folds = np.zeros((len(cells.labels), len(classes))), []
    splits = StratifiedGroupKFold(n_folds, shuffle=True, random_state=random_seed)
    for train, test in splits.split(cells.features, cells.labels, groups):
        pipeline = fit_pipeline(
            cells.features[train],
            cells.labels[train],
            params,
            use_scaling=use_scaling,
            n_pca_components=n_pca_components,
        )
        columns = np.searchsorted(classes, pipeline.classifier.classes_)
        shares[np.ix_(test, columns)] = pipeline.predict_proba(cells.features[test])
        folds.append((len(np.unique(groups[test])), len(train), len(test), _balanced(cells, shares, test)))
    names = ["held_out", "n_train", "n_test", "balanced_accuracy"]
    return CrossValidation(
        _summary(cells, shares, classes, params["class_weight"], random_seed),
        _by_class(cells, shares, classes, random_seed),
        pd.DataFrame(folds, columns=names).rename_axis("fold"),
        by,
    )


def _balanced(cells: LabelledCells, shares: np.ndarray, rows: np.ndarray) -> float:
    classes, labels = np.unique(cells.labels), cells.labels[rows]
    predicted = classes[shares[rows].argmax(axis=1)]
    return float(np.mean([np.mean(predicted[labels == name] == name) for name in np.unique(labels)]))


def _summary(cells: LabelledCells, shares: np.ndarray, classes: np.ndarray, weights: Any, seed: int) -> pd.DataFrame:
    found = score_shares(cells.labels, shares, classes, cells.lineages, seed)
    scores = {"balanced_accuracy": found.balanced_accuracy, "macro_f1": found.macro_f1, "auroc": found.auroc}
    rows = {name: (score.value, score.low, score.high, score.chance) for name, score in scores.items()}
    rows["calibration_error"] = (calibration_error(shares, cells.labels, classes, weights), *[np.nan] * 3)
    # Guessing gives every class the same probability.
    rows["brier"] = (brier_score(shares, cells.labels, classes, weights), np.nan, np.nan, 1 - 1 / len(classes))
    columns = ["value", "low", "high", "chance"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("metric")


def _by_class(cells: LabelledCells, shares: np.ndarray, classes: np.ndarray, seed: int) -> pd.DataFrame:
    """Judge each class against all others, with intervals over lineages."""
    predicted = classes[shares.argmax(axis=1)]
    codes, drawn = draw_units(cells.lineages, seed, _N_DRAWS)
    weights = np.vstack([np.ones((1, drawn.shape[1])), drawn])  # the first row is all lineages once
    rows = {}
    for number, name in enumerate(classes):
        own, told = cells.labels == name, predicted == name
        hits, n_own, n_told = (weights @ np.bincount(codes, each) for each in (own & told, own, told))
        with np.errstate(invalid="ignore"):
            figures = {"precision": hits / n_told, "recall": hits / n_own, "f1": 2 * hits / (n_own + n_told)}
        figures["auroc"] = weighted_auroc(own, shares[:, number], codes, weights)
        rows[name] = {"n_cells": int(own.sum()), "n_lineages": len(np.unique(codes[own]))}
        for figure, values in figures.items():
            low, high = percentile_interval(values[1:])
            rows[name] |= {figure: values[0], f"{figure}_low": low, f"{figure}_high": high}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("class")
