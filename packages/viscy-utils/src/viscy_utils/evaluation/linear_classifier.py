"""Linear classifiers of annotated states, trained on some embeddings and applied to others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.optional import from_extra
from viscy_data.stores import canonical_fov_name, well_of
from viscy_utils.evaluation.calibration import brier_score, calibration_error, temperature_of
from viscy_utils.evaluation.embedded import canonical_fovs
from viscy_utils.evaluation.linear_classifier_data import load_and_combine_datasets
from viscy_utils.evaluation.linear_classifier_split import (
    LabelledCells,
    choose_groups,
    fewest_groups,
    labelled_cells,
    solver_that_fits,
)
from viscy_utils.evaluation.linear_classifier_wandb import load_pipeline_from_wandb, save_pipeline_to_wandb
from viscy_utils.evaluation.probe import score_predictions

with from_extra("eval", package="viscy-utils"):
    import pandas as pd
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score, precision_recall_fscore_support, roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    import anndata as ad

__all__ = [
    "LinearClassifierPipeline",
    "fit_pipeline",
    "load_and_combine_datasets",
    "load_pipeline_from_wandb",
    "predict_with_classifier",
    "save_pipeline_to_wandb",
    "train_linear_classifier",
]

_logger = logging.getLogger(__name__)


@dataclass
class LinearClassifierPipeline:
    """A classifier with what its features go through first.

    Parameters
    ----------
    classifier : LogisticRegression
    scaler : StandardScaler, optional
    pca : PCA, optional
        Applied after the scaler.
    config : dict
        How it was trained.
    task : str
        Name of the annotation that it tells.
    """

    classifier: LogisticRegression
    scaler: StandardScaler | None
    pca: PCA | None
    config: dict[str, Any]
    task: str

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Scale and reduce features (N, F) as in training."""
        for step in (self.scaler, self.pca):
            if step is not None:
                X = step.transform(X)
        return X

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the class of each row, (N,)."""
        return self.classifier.predict(self.transform(X))

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the probability of each class, (N, K)."""
        return self.classifier.predict_proba(self.transform(X))


def train_linear_classifier(
    adata: ad.AnnData,
    task: str,
    use_scaling: bool = True,
    use_pca: bool = False,
    n_pca_components: int | None = None,
    classifier_params: Mapping[str, Any] | None = None,
    split_train_data: float = 0.8,
    random_seed: int = 42,
    groups: np.ndarray | None = None,
    calibrate: bool = True,
) -> tuple[LinearClassifierPipeline, dict[str, float]]:
    """Train a logistic regression, and judge it on cells that neither it nor its scaler has seen.

    Parameters
    ----------
    adata : AnnData
        Features in ``X``; ``fov_name``, ``track_id`` and ``task`` in ``obs``, perhaps ``experiment``, ``dataset`` and
        ``lineage_id``. Cells without a label, or with the label "unknown", are left out.
    task : str
        Column to tell.
    use_scaling : bool, default True
        Standardise features.
    use_pca : bool, default False
        Reduce them to ``n_pca_components`` (by default all).
    n_pca_components : int, optional
        At most.
    classifier_params : mapping, optional
        Of `sklearn.linear_model.LogisticRegression`; balanced class weights and 1000 iterations by default.
    split_train_data : float, default 0.8
        About this share of the cells trains. 1 trains on all, and there are no validation metrics.
    random_seed : int, default 42
        Of the split and the solver.
    groups : ndarray, shape (N,), optional
        Such as the experiment: a group is on one side of the split. By default FOVs, or lineages where a class lives
        in a single FOV.
    calibrate : bool, default True
        Make probabilities true to how often predictions are right, by a temperature that is found on folds of the
        training cells (`viscy_utils.evaluation.calibration.temperature_of`); the predicted classes stay. With balanced
        class weights probabilities are those of equally frequent classes.

    Returns
    -------
    pipeline : LinearClassifierPipeline
        Its ``config`` says how it was split.
    metrics : dict of str to float
        ``{train,val}_accuracy``, ``_weighted_{precision,recall,f1}``, ``_macro_f1``, ``_auroc``,
        ``_calibration_error``, ``_brier`` and per class ``_{class}_{precision,recall,f1}``; ``val_balanced_accuracy``
        with its 95 % interval over lineages (``..._low``, ``..._high``) and ``val_chance``.

    Raises
    ------
    ValueError
        If there are not two classes on both sides, or a group divides a lineage.
    """
    cells = labelled_cells(adata, task, groups)
    test, split_by = _split(cells, split_train_data, random_seed)
    n_classes = len(np.unique(cells.labels))
    params = solver_that_fits({**_DEFAULTS, "random_state": random_seed, **(classifier_params or {})}, n_classes)
    steps = {"use_scaling": use_scaling, "n_pca_components": (n_pca_components or -1) if use_pca else None}
    features, labels = cells.features[~test], cells.labels[~test]
    pipeline = fit_pipeline(features, labels, params, task=task, **steps)
    temperature = _calibrate(pipeline, cells, ~test, params, steps) if calibrate else None
    pipeline.config = {
        "task": task,
        "use_scaling": use_scaling,
        "use_pca": use_pca,
        "n_pca_components": n_pca_components,
        "classifier_params": params,
        "split_train_data": split_train_data,
        "random_seed": random_seed,
        "temperature": temperature,
        "split_by": split_by,
        "n_train": int((~test).sum()),
        "n_validation": int(test.sum()),
        "n_without_label": len(adata) - len(labels) - int(test.sum()),
    }
    metrics = _metrics("train", pipeline, features, labels)
    if test.any():
        metrics |= _validation(pipeline, cells, test, random_seed)
    return pipeline, metrics


def fit_pipeline(
    features: np.ndarray,
    labels: np.ndarray,
    params: Mapping[str, Any],
    *,
    task: str = "",
    use_scaling: bool = True,
    n_pca_components: int | None = None,
) -> LinearClassifierPipeline:
    """Fit scaler, PCA and classifier on the same cells.

    Parameters
    ----------
    features : ndarray of float64, shape (N, F)
    labels : ndarray of str, shape (N,)
    params : mapping
        Of `sklearn.linear_model.LogisticRegression`.
    task : str, default ""
    use_scaling : bool, default True
    n_pca_components : int, optional
        At most so many principal components, -1 for all; without, no PCA.
    """
    pipeline = LinearClassifierPipeline(LogisticRegression(**params), None, None, {}, task)
    if use_scaling:
        pipeline.scaler = StandardScaler().fit(features)
    if n_pca_components is not None:
        most = min(features.shape)
        n_components = most if n_pca_components < 0 else min(n_pca_components, most)
        pca = PCA(n_components, random_state=params.get("random_state"))
        pipeline.pca = pca.fit(pipeline.transform(features))
    pipeline.classifier.fit(pipeline.transform(features), labels)
    return pipeline


def _calibrate(
    pipeline: LinearClassifierPipeline,
    cells: LabelledCells,
    train: np.ndarray,
    params: Mapping[str, Any],
    steps: Mapping[str, Any],
) -> float | None:
    """Divide the logits by a temperature found on folds of the training cells; None where there cannot be folds."""
    features, labels, lineages = cells.features[train], cells.labels[train], cells.lineages[train]
    n_folds = min(5, fewest_groups(lineages, labels))
    if n_folds < 2:
        return None
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=params["random_state"])
    logits, known = [], []
    for fit, held_out in folds.split(features, labels, lineages):
        own = fit_pipeline(features[fit], labels[fit], params, **steps)
        if len(own.classifier.classes_) == len(pipeline.classifier.classes_):
            logits.append(own.classifier.decision_function(own.transform(features[held_out])))
            known.append(labels[held_out])
    if not logits:
        return None
    classes = pipeline.classifier.classes_
    weights = params["class_weight"]
    temperature = temperature_of(np.concatenate(logits), np.concatenate(known), classes, weights)
    pipeline.classifier.coef_ = pipeline.classifier.coef_ / temperature
    pipeline.classifier.intercept_ = pipeline.classifier.intercept_ / temperature
    return temperature


_DEFAULTS: dict[str, Any] = {"max_iter": 1000, "class_weight": "balanced"}


def _split(cells: LabelledCells, share: float, seed: int) -> tuple[np.ndarray, str]:
    """Choose the cells of validation: whole groups, with about the same shares of the classes."""
    if len(np.unique(cells.labels)) < 2:
        raise ValueError(f"a classifier needs two classes, found {np.unique(cells.labels).tolist()}")
    if share == 1:
        return np.zeros(len(cells.labels), dtype=bool), "nothing, all cells train"
    name, groups = choose_groups(cells)
    n_groups = fewest_groups(groups, cells.labels)
    folds = StratifiedGroupKFold(min(n_groups, max(2, round(1 / (1 - share)))), shuffle=True, random_state=seed)
    test = np.zeros(len(cells.labels), dtype=bool)
    test[next(folds.split(cells.features, cells.labels, groups))[1]] = True
    divided = np.intersect1d(cells.lineages[test], cells.lineages[~test])
    if len(divided):
        raise ValueError(f"groups: {len(divided)} lineages are in several groups, so that both sides would know them")
    if any(len(np.unique(cells.labels[side])) < 2 for side in (test, ~test)):
        raise ValueError(f"a side of the split by {name} has a single class; annotate more of the other one")
    return test, name


def _validation(
    pipeline: LinearClassifierPipeline, cells: LabelledCells, test: np.ndarray, seed: int
) -> dict[str, float]:
    metrics = _metrics("val", pipeline, cells.features[test], cells.labels[test])
    predicted = pipeline.predict(cells.features[test])
    score = score_predictions(cells.labels[test], predicted, cells.lineages[test], seed)
    named = {"": score.value, "_low": score.low, "_high": score.high}
    metrics |= {f"val_balanced_accuracy{end}": value for end, value in named.items()}
    return metrics | {"val_chance": score.chance}


def _metrics(
    side: str, pipeline: LinearClassifierPipeline, features: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    predicted, classes = pipeline.predict(features), pipeline.classifier.classes_
    found: dict[str, Any] = {"accuracy": np.mean(predicted == labels)}
    weighted = precision_recall_fscore_support(labels, predicted, average="weighted", zero_division=0)
    found |= {f"weighted_{name}": value for name, value in zip(("precision", "recall", "f1"), weighted, strict=False)}
    found["macro_f1"] = f1_score(labels, predicted, average="macro", zero_division=0)
    found["auroc"] = _auroc(pipeline, features, labels)
    shares, weights = pipeline.predict_proba(features), pipeline.classifier.class_weight
    found["calibration_error"] = calibration_error(shares, labels, classes, weights)
    found["brier"] = brier_score(shares, labels, classes, weights)
    each = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    for name, values in zip(("precision", "recall", "f1"), each, strict=False):
        found |= {f"{label}_{name}": value for label, value in zip(classes, values, strict=True)}
    return {f"{side}_{name}": float(value) for name, value in found.items()}


def _auroc(pipeline: LinearClassifierPipeline, features: np.ndarray, labels: np.ndarray) -> float:
    """Area under the curve, one class against the others; the mean over the classes that occur."""
    shares = pipeline.predict_proba(features)
    areas = [
        roc_auc_score(labels == label, shares[:, number])
        for number, label in enumerate(pipeline.classifier.classes_)
        if 0 < (labels == label).sum() < len(labels)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def predict_with_classifier(
    adata: ad.AnnData,
    pipeline: LinearClassifierPipeline,
    task: str,
    artifact_metadata: Mapping[str, Any] | None = None,
    include_wells: Sequence[str] | None = None,
) -> ad.AnnData:
    """Add the predictions of a classifier to embeddings.

    Parameters
    ----------
    adata : AnnData
        Modified. Rows of features that are not finite get no prediction, which is logged.
    pipeline : LinearClassifierPipeline
    task : str
        Part of the names of what is added.
    artifact_metadata : mapping, optional
        ``artifact_name``, ``artifact_id`` and ``artifact_version`` of the classifier.
    include_wells : sequence of str, optional
        Predict only the cells of these wells, such as ``A/1``.

    Returns
    -------
    AnnData
        ``obs["predicted_<task>"]``, categorical, NaN where nothing was predicted; ``obsm["predicted_<task>_proba"]``
        (N, K); ``uns["predicted_<task>_classes"]``; with metadata ``uns["classifier_<task>_{artifact,id,version}"]``.

    Raises
    ------
    ValueError
        If the embeddings have another number of features, or a well has no cells.
    """
    features = np.asarray(adata.X, dtype=np.float64)
    first = pipeline.scaler or pipeline.pca or pipeline.classifier
    if features.shape[1] != first.n_features_in_:
        expected = f"expected {first.n_features_in_}, as in training"
        raise ValueError(f"{task}: found embeddings of {features.shape[1]} features, {expected}")
    finite = np.isfinite(features).all(axis=1)
    chosen = _in_wells(adata.obs["fov_name"], include_wells) & finite
    if not finite.all():
        _logger.warning("%s: %d rows of features that are not finite are not predicted", task, (~finite).sum())
    classes = [str(name) for name in pipeline.classifier.classes_]
    predicted = np.full(len(features), None, dtype=object)
    shares = np.full((len(features), len(classes)), np.nan, dtype=np.float32)
    if chosen.any():
        predicted[chosen] = pipeline.predict(features[chosen]).astype(str)
        shares[chosen] = pipeline.predict_proba(features[chosen])
    adata.obs[f"predicted_{task}"] = pd.Categorical(predicted, categories=classes)
    adata.obsm[f"predicted_{task}_proba"] = shares
    adata.uns[f"predicted_{task}_classes"] = classes
    for name, key in (("artifact", "artifact_name"), ("id", "artifact_id"), ("version", "artifact_version")):
        if artifact_metadata is not None:
            adata.uns[f"classifier_{task}_{name}"] = str(artifact_metadata[key])
    return adata


def _in_wells(fov_names: pd.Series, wells: Sequence[str] | None) -> np.ndarray:
    if wells is None:
        return np.ones(len(fov_names), dtype=bool)
    own = canonical_fovs(fov_names).map(well_of).to_numpy()
    wanted = [canonical_fov_name(well) for well in wells]
    absent = sorted(set(wanted) - set(own))
    if absent:
        raise ValueError(f"include_wells: no cells of {', '.join(absent)}, expected of {', '.join(sorted(set(own)))}")
    return np.isin(own, wanted)
