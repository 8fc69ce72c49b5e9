"""Scores of predicted classes, against scikit-learn and against copies of cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from viscy_utils.evaluation.intervals import draw_units, mean_by_unit, percentile_interval
from viscy_utils.evaluation.probe import probe_scores, separability_scores
from viscy_utils.evaluation.scores import score_shares, weighted_auroc


def _shares(n, k, seed):
    rng = np.random.default_rng(seed)
    shares = rng.integers(1, 5, size=(n, k)).astype(float)  # many are equal
    labels = np.concatenate([np.arange(k), rng.integers(k, size=n - k)]).astype(str)
    return labels, shares / shares.sum(axis=1, keepdims=True), np.arange(k).astype(str)


@settings(deadline=None, max_examples=25)
@given(k=st.integers(2, 4), n=st.integers(8, 40), seed=st.integers(0, 99))
def test_scores_are_those_of_scikit_learn(k, n, seed):
    labels, shares, classes = _shares(n, k, seed)
    found = score_shares(labels, shares, classes, np.arange(n) // 2, seed=0)
    predicted = classes[shares.argmax(axis=1)]
    assert found.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found.macro_f1.value == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    areas = [roc_auc_score(labels == name, shares[:, number]) for number, name in enumerate(classes)]
    assert found.auroc.value == pytest.approx(areas[0] if k == 2 else np.mean(areas))
    for score in (found.balanced_accuracy, found.macro_f1, found.auroc):
        assert 0 <= score.low <= score.high <= 1


def test_weight_of_a_unit_is_that_many_copies_of_its_cells():
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(6), 5)
    positive, scores = rng.random(30) < 0.5, rng.integers(5, size=30).astype(float)
    weights = np.array([[2, 0, 1, 3, 0, 1], [0, 1, 1, 1, 1, 2]])
    found = weighted_auroc(positive, scores, units, weights)
    for row, area in zip(weights, found, strict=True):
        copies = np.repeat(np.arange(30), row[units])
        assert area == pytest.approx(roc_auc_score(positive[copies], scores[copies]))
    assert np.isnan(weighted_auroc(np.ones(30, bool), scores, units, weights)).all()


def test_chance_of_macro_f1_is_what_guessing_reaches():
    rng = np.random.default_rng(2)
    labels = np.where(rng.random(20_000) < 0.1, "a", "b")
    shares = np.eye(2)[rng.integers(2, size=len(labels))]
    score = score_shares(labels, shares, np.array(["a", "b"]), np.arange(len(labels)) // 100, seed=0).macro_f1
    assert score.value == pytest.approx(score.chance, abs=0.01)
    assert score.chance == pytest.approx((2 * 0.1 * 0.5 / 0.6 + 2 * 0.9 * 0.5 / 1.4) / 2, abs=0.01)


def test_a_class_of_one_fold_is_told_with_probability_zero():
    """One of the classes lives in two FOVs: folds that lack it in training must not shift the others' columns."""
    rng = np.random.default_rng(3)
    fov = np.repeat(np.arange(8), 20)
    labels = np.where(fov < 2, "rare", np.where(rng.random(160) < 0.5, "a", "b"))
    features = np.column_stack([(labels == name) * 5.0 for name in ("rare", "a", "b")]) + rng.normal(size=(160, 3)) / 9
    found = probe_scores(features, labels, fov, np.arange(160))
    assert found.balanced_accuracy.value > 0.95
    assert found.auroc.value > 0.95


def test_experiments_are_told_by_a_line_but_not_by_neighbours():
    """A shift along a direction of little variance: the linear probe sees it, neighbours do not."""
    rng = np.random.default_rng(4)
    fov = np.arange(1200) % 8
    features = rng.normal(size=(1200, 60))
    features[:, 0] += 2.5 * (fov % 2)
    features[:, 1:] *= 5
    units = np.arange(1200)
    line = probe_scores(features, fov % 2, fov, units).balanced_accuracy
    near = separability_scores(features, fov % 2, fov, units).balanced_accuracy
    assert line.value > 0.8
    assert near.value < 0.6


def test_mean_by_unit_is_the_interval_of_drawn_units():
    values, units = np.array([0.0, 1.0, 1.0, 5.0]), np.array(["b", "b", "a", "c"])
    mean, low, high = mean_by_unit(values, units, seed=3)
    codes, weights = draw_units(units, seed=3)
    slow = [
        values[np.concatenate([np.flatnonzero(codes == u) for u in np.repeat(range(3), w)])].mean() for w in weights
    ]
    assert (mean, low, high) == (1.75, *map(pytest.approx, np.quantile(slow, [0.025, 0.975])))
    assert (weights.sum(axis=1) == 3).all()
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()
