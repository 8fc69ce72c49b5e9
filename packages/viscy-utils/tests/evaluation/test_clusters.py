"""Clusters: agreement with labels as scikit-learn has it, what was built in, and what chance gives."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from viscy_utils.evaluation.clusters import adjusted_rand, cluster_scores, normalized_information


@pytest.mark.parametrize("n_classes", [(1, 1), (1, 3), (4, 3), (30, 30)])
def test_agreement_is_that_of_scikit_learn(n_classes):
    rng = np.random.default_rng(0)
    first, second = (rng.integers(n, size=60) for n in n_classes)
    counts = np.zeros((1, *n_classes))
    np.add.at(counts[0], (first, second), 1)
    assert adjusted_rand(counts)[0] == pytest.approx(adjusted_rand_score(first, second), abs=1e-12)
    if n_classes != (1, 1):  # there is nothing to know, which scikit-learn calls 1
        assert normalized_information(counts)[0] == pytest.approx(normalized_mutual_info_score(first, second), abs=1e-9)


def _cells(state=0.0, experiment=0.0, n_tracks=160):
    rng = np.random.default_rng(1)
    track = np.repeat(np.arange(n_tracks), 4)
    label, day = track // 2 % 2, track // (n_tracks // 2)
    features = rng.normal(size=(n_tracks, 5))[track] + 0.2 * rng.normal(size=(len(track), 5))
    features[:, 0] += state * label
    features[:, 1] += experiment * day
    return features, np.array(["healthy", "infected"])[label], day.astype(str), track


@pytest.mark.parametrize("built_in", ["label", "experiment"])
def test_clusters_are_of_what_was_built_in(built_in):
    found = cluster_scores(*_cells(state=9.0 * (built_in == "label"), experiment=9.0 * (built_in == "experiment")))
    other = "experiment" if built_in == "label" else "label"
    for name in ("nmi", "ari"):
        own, none = getattr(found, f"{built_in}_{name}"), getattr(found, f"{other}_{name}")
        assert own.value == own.low == 1.0
        assert none.low <= none.chance + 0.02
        assert own.chance < 0.05  # although every lineage is of one experiment
    assert found.silhouette.low > found.silhouette.chance


def test_cells_without_clusters_are_at_chance():
    found = cluster_scores(*_cells())
    assert found.silhouette.value == pytest.approx(found.silhouette.chance, abs=0.05)
    assert found.label_ari.low <= found.label_ari.chance + 0.02


def test_a_single_label_or_point_says_why_there_are_none():
    features, labels, days, track = _cells()
    assert "single label" in cluster_scores(features, np.full_like(labels, "healthy"), days, track).silhouette.note
    assert "different cells" in cluster_scores(np.zeros_like(features), labels, days, track).label_nmi.note
