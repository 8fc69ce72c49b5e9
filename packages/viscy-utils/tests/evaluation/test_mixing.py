"""Mixing of batches: closed forms, loops over cells, and scib-metrics where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import chisquare
from sklearn.metrics import silhouette_samples

from viscy_utils.evaluation.mixing import (
    batch_silhouette,
    kbet,
    kbet_p_values,
    label_silhouette,
    lisi,
    lisi_of_neighbors,
)
from viscy_utils.evaluation.neighborhoods import nearest_rows


def _batches(shift, seed=0, n=300):
    rng = np.random.default_rng(seed)
    batches = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    features = rng.normal(size=(n, 4))
    features[:, 0] += shift * batches
    return features, batches, np.arange(n)


def test_lisi_is_that_of_a_loop_with_a_root_finder():
    rng = np.random.default_rng(0)
    distances = np.sort(rng.uniform(0.1, 3, size=(20, 30)), axis=1)
    batches = rng.integers(3, size=(20, 30))
    found = lisi_of_neighbors(distances, batches, 10)
    for row in range(20):

        def weights(steepness, near=distances[row]):
            raw = np.exp(-steepness * near)
            return raw / raw.sum()

        def excess(steepness, weights=weights):
            p = weights(steepness)
            return -np.sum(p * np.log(p)) - np.log(10)

        p = weights(brentq(excess, 0, 100))
        assert found[row] == pytest.approx(1 / sum(p[batches[row] == each].sum() ** 2 for each in range(3)), rel=1e-6)


def test_lisi_of_equally_far_neighbors_is_the_inverse_of_the_sum_of_squares():
    batches = np.array([[0, 0, 0, 1, 1, 2], [1, 1, 1, 1, 1, 1]])
    np.testing.assert_allclose(lisi_of_neighbors(np.ones((2, 6)), batches, 2), [36 / 14, 1])


def test_lisi_is_at_chance_where_mixed_and_zero_where_apart():
    mixed, apart = lisi(*_batches(0, n=1500)), lisi(*_batches(50, n=1500), k=30)
    assert mixed.value == pytest.approx(mixed.chance, abs=0.05)
    assert apart.value == pytest.approx(0, abs=0.01)
    assert mixed.low <= mixed.value <= mixed.high


def test_kbet_accepts_what_is_mixed_and_nothing_else():
    mixed, apart = kbet(*_batches(0, n=1500)), kbet(*_batches(50, n=1500))
    assert mixed.value == pytest.approx(0.95, abs=0.05)
    assert apart.value < 0.01


def test_kbet_p_is_that_of_scipy():
    batches = np.random.default_rng(1).integers(3, size=(5, 40))
    shares = np.array([0.2, 0.3, 0.5])
    expected = [chisquare(np.bincount(row, minlength=3), 40 * shares).pvalue for row in batches]
    np.testing.assert_allclose(kbet_p_values(batches, shares), expected)


def test_own_frames_do_not_count_as_neighbors():
    """Each lineage is one batch: its frames surround a cell, and other lineages are mixed all the same."""
    rng = np.random.default_rng(2)
    lineages = np.repeat(np.arange(600), 5)
    features = rng.normal(size=(600, 3))[lineages] + 1e-3 * rng.normal(size=(3000, 3))
    batches = rng.integers(2, size=600)[lineages]
    assert lisi(features, batches, lineages).value > 0.55
    assert lisi(features, batches, np.arange(3000), k=5).value < 0.4


def test_silhouettes_are_means_of_scikit_learns():
    features, batches, units = _batches(1)
    labels = np.where(features[:, 1] > 0, "a", "b")
    expected = np.mean((silhouette_samples(features, labels) + 1) / 2)
    assert label_silhouette(features, labels, units).value == pytest.approx(expected)
    each = [np.mean(1 - np.abs(silhouette_samples(features[labels == n], batches[labels == n]))) for n in "ab"]
    assert batch_silhouette(features, labels, batches, units).value == pytest.approx(np.mean(each))


@pytest.mark.parametrize("measure", [lisi, kbet, label_silhouette])
def test_a_single_batch_has_no_mixing(measure):
    features, batches, units = _batches(0)
    assert "single" in measure(features, np.zeros(len(batches)), units).note


def test_labels_of_one_batch_each_have_no_batch_silhouette():
    features, batches, units = _batches(0)
    assert "no label" in batch_silhouette(features, batches, batches, units).note


def test_the_figures_are_those_of_scib_metrics():
    scib = pytest.importorskip("scib_metrics")
    from scib_metrics.nearest_neighbors import NeighborsResults

    features, batches, units = _batches(1)
    features = features.astype(np.float32)
    rows, distances = nearest_rows(features, units, 60)
    # Their neighbours begin with the cell itself, which has no weight in LISI and counts in kBET.
    theirs = NeighborsResults(
        indices=np.column_stack([units, rows]), distances=np.column_stack([np.zeros(len(units)), distances])
    )
    found = lisi_of_neighbors(distances, batches[rows], 20)
    np.testing.assert_allclose(found, scib.lisi_knn(theirs, batches, perplexity=20), rtol=1e-3)
    p_values = kbet_p_values(batches[theirs.indices], np.bincount(batches) / len(batches))
    np.testing.assert_allclose(p_values, scib.kbet(theirs, batches)[2], rtol=1e-3, atol=1e-6)
    labels = np.where(features[:, 1] > 0, "a", "b")
    expected = scib.silhouette_batch(features, labels, batches)
    assert batch_silhouette(features, labels, batches, units).value == pytest.approx(expected, rel=1e-4)
    expected = scib.silhouette_label(features, labels)
    assert label_silhouette(features, labels, units).value == pytest.approx(expected, rel=1e-4)
