"""Calibration: against a grid of temperatures, against loops, and on logits whose temperature is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import brier_score_loss

from viscy_utils.evaluation.calibration import brier_score, calibration_error, temperature_of

CLASSES = np.array(["a", "b", "c"])


def _drawn(temperature, seed=0, n=20_000):
    """Logits that are too large by a factor, and labels drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, 3))
    shares = softmax(logits, axis=1)
    labels = CLASSES[(rng.random((n, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(max=2)]
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1, 4])
def test_the_temperature_of_drawn_labels_is_found(temperature):
    logits, labels = _drawn(temperature)
    assert temperature_of(logits, labels, CLASSES, None) == pytest.approx(temperature, rel=0.05)
    found = softmax(logits / temperature, axis=1)
    assert calibration_error(found, labels, CLASSES) < 0.02
    if temperature == 4:
        assert calibration_error(softmax(logits, axis=1), labels, CLASSES) > 0.1


def test_two_classes_and_weights_give_the_least_loss_of_a_grid():
    logits, labels = _drawn(3, n=400)
    kept = labels != "c"
    logit, labels = (logits[:, 1] - logits[:, 0])[kept], labels[kept]
    weights = np.where(labels == "a", 5.0, 1.0)
    counts = {name: np.sum(labels == name) for name in "ab"}

    def loss(temperature):
        """Each cell once as its label and, with a share of 1 / (n + 2), as the other one."""
        p = 1 / (1 + np.exp(-logit / temperature))
        p_own = np.where(labels == "b", p, 1 - p)
        doubt = np.array([1 / (counts[name] + 2) for name in labels])
        return np.average(-(1 - doubt) * np.log(p_own) - doubt * np.log(1 - p_own), weights=weights)

    grid = np.exp(np.linspace(0, 3, 601))
    found = temperature_of(logit, labels, CLASSES[:2], {"a": 5.0, "b": 1.0})
    assert found == pytest.approx(min(grid, key=loss), rel=0.01)


def test_labels_told_without_a_mistake_leave_a_doubt():
    logit = np.repeat([-1.0, 1.0], 20)
    labels = np.repeat(["a", "b"], 20)
    temperature = temperature_of(logit, labels, CLASSES[:2], "balanced")
    assert 1 / (1 + np.exp(-1 / temperature)) == pytest.approx(21 / 22, abs=1e-3)


def test_error_and_brier_are_those_of_loops():
    logits, labels = _drawn(2, n=300)
    shares = softmax(logits, axis=1)
    error = 0.0
    for low in np.arange(10) / 10:
        rows = [n for n in range(300) if low <= shares[n].max() < low + 0.1 + 1e-12]
        if rows:
            right = np.mean([CLASSES[shares[n].argmax()] == labels[n] for n in rows])
            error += len(rows) / 300 * abs(right - np.mean([shares[n].max() for n in rows]))
    assert calibration_error(shares, labels, CLASSES) == pytest.approx(error)
    own = [brier_score_loss(labels == name, shares[:, n]) for n, name in enumerate(CLASSES)]
    assert brier_score(shares, labels, CLASSES) == pytest.approx(sum(own))
    copies = np.concatenate([np.arange(300), np.flatnonzero(labels == "a")])
    weighted = brier_score(shares, labels, CLASSES, {"a": 2.0, "b": 1.0, "c": 1.0})
    assert weighted == pytest.approx(brier_score(shares[copies], labels[copies], CLASSES))
