"""Neighbourhoods and clusters: against numbers of VisCy v2.2 where those are right, and against slow loops."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from viscy_utils.evaluation.clustering import (
    clustering_evaluation,
    compare_time_offset,
    dbscan_clustering,
    knn_accuracy,
    pairwise_distance_matrix,
    rank_nearest_neighbors,
    select_block,
)


@pytest.fixture
def expected(golden):
    return np.load(golden / "evaluation.npz")


@pytest.fixture
def features(signed):
    return signed((12, 6), "clu_f")


@pytest.fixture
def groups(signed):
    """Two clusters of twenty cells, and annotations of which two are wrong."""
    labels = np.repeat([0, 1], 20)
    labels[[3, 25]] = 1 - labels[[3, 25]]
    return np.concatenate([0.1 * signed((20, 4), "clu_g"), 0.1 * signed((20, 4), "clu_h") + 1]), labels


@pytest.mark.parametrize("device", ["cpu", "scipy", None, "auto"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean", "cityblock"])
def test_distances_are_those_of_the_reference(features, expected, metric, device):
    found = pairwise_distance_matrix(features, metric, device)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected[f"pd_{metric}"], atol=1e-6)


def test_a_gpu_that_is_not_there_is_said_and_an_unknown_device_refused(features, caplog):
    import torch

    if not torch.cuda.is_available():
        with caplog.at_level(logging.WARNING):
            np.testing.assert_allclose(
                pairwise_distance_matrix(features, device="cuda"), cdist(features, features, "cosine"), atol=1e-12
            )
        assert "no GPU" in caplog.text
    with pytest.raises(ValueError, match="tpu"):
        pairwise_distance_matrix(features, device="tpu")


def test_ranks_blocks_and_offsets_are_those_of_the_reference(expected):
    distances = expected["pd_cosine"]
    ranks = rank_nearest_neighbors(distances)
    np.testing.assert_allclose(ranks, expected["rank"])
    np.testing.assert_array_equal(rank_nearest_neighbors(distances, normalize=False), expected["rank_raw"])
    np.testing.assert_allclose(select_block(distances, np.array([1, 4, 7])), expected["block"])
    np.testing.assert_allclose(compare_time_offset(ranks), expected["off1"])
    np.testing.assert_allclose(compare_time_offset(ranks, 3), expected["off3"])


def test_clusters_are_found_and_compared(groups):
    embeddings, labels = groups
    clusters = dbscan_clustering(embeddings)
    truth = np.repeat([0, 1], 20)
    assert (clusters == truth).all()
    # Adjusted Rand index and mutual information of the 2 x 2 table, by their formulas.
    table = np.array([[(labels[clusters == k] == j).sum() for j in (0, 1)] for k in (0, 1)])
    p = table / table.sum()
    outer = np.outer(p.sum(axis=1), p.sum(axis=0))
    mutual = np.sum(p[p > 0] * np.log(p[p > 0] / outer[p > 0]))
    entropies = [-np.sum(q * np.log(q)) for q in (p.sum(axis=0), p.sum(axis=1))]
    assert clustering_evaluation(embeddings, labels) == pytest.approx(mutual / np.mean(entropies))
    pairs = [(i, j) for i in range(40) for j in range(i)]
    same = np.array([[clusters[i] == clusters[j], labels[i] == labels[j]] for i, j in pairs])
    both, by_chance = same.all(axis=1).sum(), same[:, 0].sum() * same[:, 1].sum() / len(pairs)
    highest = same.sum(axis=0).mean()
    assert clustering_evaluation(embeddings, labels, "ari") == pytest.approx((both - by_chance) / (highest - by_chance))
    with pytest.raises(ValueError, match="purity"):
        clustering_evaluation(embeddings, labels, "purity")


def test_a_cell_does_not_vote_for_itself(groups):
    """On its own training points a single neighbour is always right: 1.0 on labels that are noise."""
    assert knn_accuracy(*groups) == 38 / 40
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(400, 4)), rng.integers(2, size=400)
    for k in (1, 5):
        assert abs(knn_accuracy(noise, labels, k) - 0.5) < 0.08


@given(st.integers(0, 1000), st.integers(1, 4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_votes_are_those_of_a_slow_loop(seed, k, grouped):
    rng = np.random.default_rng(seed)
    embeddings, labels, groups = rng.normal(size=(20, 3)), rng.integers(3, size=20), np.repeat(np.arange(4), 5)
    right = 0
    for i in range(20):
        others = [j for j in range(20) if (groups[j] != groups[i] if grouped else j != i)]
        near = sorted(others, key=lambda j: np.linalg.norm(embeddings[i] - embeddings[j]))[:k]
        counts = [sum(labels[j] == c for j in near) for c in range(3)]
        right += counts.index(max(counts)) == labels[i]
    assert knn_accuracy(embeddings, labels, k, groups if grouped else None) == pytest.approx(right / 20)


def test_tracks_whose_cells_look_alike_do_not_tell_labels_that_are_noise():
    rng = np.random.default_rng(0)
    track = np.repeat(np.arange(80), 6)
    embeddings = rng.normal(size=(80, 4))[track] + 0.01 * rng.normal(size=(480, 4))
    labels = rng.integers(2, size=80)[track]
    assert knn_accuracy(embeddings, labels) > 0.95
    assert abs(knn_accuracy(embeddings, labels, groups=track) - 0.5) < 0.15


def test_more_neighbours_than_cells_are_refused():
    with pytest.raises(ValueError, match="k = 5 neighbours, but there are 5 cells"):
        knn_accuracy(np.eye(5), np.arange(5), 5)
