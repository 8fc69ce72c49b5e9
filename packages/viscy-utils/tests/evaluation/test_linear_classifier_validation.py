"""Cross-validation of classifiers: groups stay whole, figures are those of scikit-learn on the same predictions."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from viscy_utils.evaluation.linear_classifier_validation import cross_validate


def _cells(told=1.5, n_tracks=120, n_experiments=3, seed=0):
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(n_tracks), 4)
    state = rng.choice(3, p=[0.5, 0.3, 0.2], size=n_tracks)[track]
    features = rng.normal(size=(n_tracks, 6))[track] + 0.1 * rng.normal(size=(len(track), 6))
    features[np.arange(len(track)), state] += told
    obs = pd.DataFrame(
        {
            "experiment": [f"day {n}" for n in track % n_experiments],
            "fov_name": [f"A/1/{n}" for n in track % 12],
            "track_id": track,
            "lineage_id": track // 2 * 12 + track % 12,
            "state": np.array(["healthy", "infected", "dead"])[state],
        },
        index=[str(n) for n in range(len(track))],
    )
    return anndata.AnnData(features, obs=obs)


def test_figures_are_those_of_scikit_learn_on_the_same_folds():
    adata = _cells()
    found = cross_validate(adata, "state", by="fov", n_folds=4, random_seed=1)
    fovs = adata.obs.groupby(["experiment", "fov_name"], observed=True).ngroup().to_numpy()
    labels, predicted = adata.obs["state"].to_numpy().astype(str), np.empty(len(adata), dtype="U9")
    splits = StratifiedGroupKFold(4, shuffle=True, random_state=1).split(adata.X, labels, fovs)
    for train, test in splits:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
        predicted[test] = model.fit(adata.X[train], labels[train]).predict(adata.X[test])
    expected = balanced_accuracy_score(labels, predicted)
    assert found.summary["value"]["balanced_accuracy"] == pytest.approx(expected)
    each = precision_recall_fscore_support(labels, predicted)
    for name, values in zip(("precision", "recall", "f1", "n_cells"), each, strict=True):
        np.testing.assert_allclose(found.classes[name], values)
    for name in ("precision", "recall", "f1", "auroc"):
        assert (found.classes[f"{name}_low"] <= found.classes[name]).all()
        assert (found.classes[name] <= found.classes[f"{name}_high"]).all()
    assert found.folds["n_test"].sum() == len(adata)
    assert found.summary["chance"]["balanced_accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("by", ["experiment", "fov", "lineage"])
def test_labels_that_are_random_per_lineage_are_not_told(by):
    adata = _cells(told=0, n_tracks=240)
    lineage = adata.obs["lineage_id"].to_numpy()
    noise = np.random.default_rng(3).integers(2, size=lineage.max() + 1)[lineage]
    adata.obs["state"] = np.array(["a", "b"])[noise]
    row = cross_validate(adata, "state", by=by).summary.loc["balanced_accuracy"]
    assert row["low"] <= 0.5 <= row["high"]


def test_whole_experiments_are_held_out():
    """A state that reads differently in each experiment is told within them and not across them."""
    adata = _cells(told=0)
    day = adata.obs["experiment"].str[-1].astype(int).to_numpy()
    state = np.random.default_rng(5).integers(2, size=120)[adata.obs["track_id"]]
    features = np.array(adata.X)
    features[np.arange(len(adata)), day] += 8.0 * state
    adata = anndata.AnnData(features, obs=adata.obs.assign(state=np.array(["a", "b"])[state]))
    within, across = (cross_validate(adata, "state", by=by) for by in ("fov", "experiment"))
    assert within.summary["value"]["balanced_accuracy"] > 0.9
    assert across.summary["value"]["balanced_accuracy"] < 0.75
    assert across.folds["held_out"].tolist() == [1, 1, 1]


def test_what_cannot_be_divided_is_refused():
    adata = _cells(n_experiments=1)
    with pytest.raises(ValueError, match="single experiment"):
        cross_validate(adata, "state", by="experiment")
    adata.obs["state"] = "healthy"
    with pytest.raises(ValueError, match="two classes"):
        cross_validate(adata, "state")
