"""Scores of a probe by the number of labelled lineages."""

from __future__ import annotations

import numpy as np
import pytest

from viscy_utils.evaluation.annotation_efficiency import annotation_efficiency


def _cells(told=2.5, n=240, seed=0):
    rng = np.random.default_rng(seed)
    lineage = np.repeat(np.arange(n), 3)
    state = rng.integers(2, size=n)[lineage]
    features = rng.normal(size=(n, 8))[lineage]
    features[:, 0] += told * state
    return features, np.array(["healthy", "infected"])[state], lineage, lineage % 4 == 0


def test_more_labelled_lineages_tell_more():
    features, labels, lineage, test = _cells()
    table = annotation_efficiency(features, labels, lineage, test, n_lineages=(30, 3, 1000))
    assert table.index.tolist() == [3, 30]
    assert table["balanced_accuracy"][30] > table["balanced_accuracy"][3] + 0.05
    assert table["n_cells"].tolist() == [2 * 3 * 3, 2 * 30 * 3]
    assert (table["chance"] == 0.5).all()
    again = annotation_efficiency(features, labels, lineage, test, n_lineages=(30, 3, 1000))
    assert table.equals(again)


def test_labels_that_are_noise_stay_at_chance_for_any_number():
    features, labels, lineage, test = _cells(told=0, n=400)
    table = annotation_efficiency(features, labels, lineage, test, n_lineages=(5, 50))
    assert table["balanced_accuracy"].between(0.4, 0.6).all()


def test_a_class_or_a_lineage_that_does_not_fit_is_refused():
    features, labels, lineage, test = _cells()
    with pytest.raises(ValueError, match="two classes"):
        annotation_efficiency(features, np.full(len(labels), "healthy"), lineage, test)
    with pytest.raises(ValueError, match="both sides"):
        annotation_efficiency(features, labels, lineage, np.arange(len(labels)) % 3 == 0)
