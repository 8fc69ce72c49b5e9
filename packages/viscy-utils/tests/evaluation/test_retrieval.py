"""Lineage retrieval and purity of neighbourhoods, against loops over cells and against all orders of a few cells."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from viscy_utils.evaluation.neighborhoods import nearest_rows
from viscy_utils.evaluation.purity import knn_purity
from viscy_utils.evaluation.retrieval import CellPlaces, lineage_retrieval


def _cells(seed=0, n_tracks=12, n_frames=5, coarse=True):
    rng = np.random.default_rng(seed)
    tracks = np.repeat(np.arange(n_tracks), n_frames)
    features = rng.normal(size=(n_tracks, 3))[tracks] + rng.normal(size=(len(tracks), 3))
    features = np.round(features) if coarse else features  # equal distances occur
    places = CellPlaces(
        fovs=tracks % 3,
        tracks=tracks,
        t=np.tile(np.arange(n_frames), n_tracks),
        yx_px=rng.uniform(0, 60, size=(len(tracks), 2)),
        patch_px=20,
    )
    return features, tracks // 2 * 3 + tracks % 3, places


def _slow(features, lineages, places, row, n_frames):
    """Candidates of a cell, their distances and whether they are of its lineage."""
    centred = features - features.mean(axis=0)
    found = []
    for other in range(len(features)):
        near = abs(places.t[other] - places.t[row]) <= n_frames
        crops = np.abs(places.yx_px[other] - places.yx_px[row]).max() < places.patch_px
        same = places.tracks[other] == places.tracks[row] or (places.fovs[other] == places.fovs[row] and crops)
        if not (near and same):
            a, b = centred[row], centred[other]
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            found.append((round(1 - cosine, 5), lineages[other] == lineages[row]))
    return np.array([d for d, _ in found]), np.array([w for _, w in found])


def test_recall_and_precision_are_those_of_a_loop_and_of_scikit_learn():
    features, lineages, places = _cells(coarse=False)
    found = lineage_retrieval(features, lineages, places, k=(1, 4))
    precision, hits = [], []
    for row in range(len(features)):
        distances, wanted = _slow(features, lineages, places, row, n_frames=1)
        if wanted.any():
            precision.append(average_precision_score(wanted, -distances))
            hits.append(wanted[np.argsort(distances)[:4]].any())
    assert found.mean_average_precision.value == pytest.approx(np.mean(precision), abs=1e-4)
    assert found.recall[4].value == pytest.approx(np.mean(hits))
    assert found.mean_average_precision.n_cells == len(hits)
    assert found.recall[1].low <= found.recall[1].value <= found.recall[1].high


def test_a_collapsed_embedding_finds_nothing_beyond_chance():
    features, lineages, places = _cells()
    found = lineage_retrieval(np.ones_like(features), lineages, places, k=(1,))
    assert found.recall[1].value == 0
    assert found.mean_average_precision.value <= found.mean_average_precision.chance


def test_chance_is_the_mean_over_all_orders():
    """Seven cells far apart of which three are one lineage: every order of the six candidates."""
    tracks = np.arange(7)
    places = CellPlaces(fovs=np.zeros(7), tracks=tracks, t=tracks * 5)
    lineages = np.array([0, 0, 0, 1, 2, 3, 4])
    found = lineage_retrieval(np.random.default_rng(0).normal(size=(7, 2)), lineages, places, k=(2,))
    orders = np.array(list(set(permutations([1, 1, 0, 0, 0, 0]))))
    expected = np.mean([average_precision_score(order, -np.arange(6)) for order in orders])
    assert found.mean_average_precision.chance == pytest.approx(expected)
    assert found.recall[2].chance == pytest.approx(orders[:, :2].any(axis=1).mean())
    assert "4 alone in their lineage" in found.recall[2].note


def test_crops_of_the_same_pixels_do_not_find_each_other():
    """Features that are the background under a cell: neighbours in space are alike, lineages are not told."""
    rng = np.random.default_rng(3)
    tracks = np.repeat(np.arange(80), 2)
    t = np.tile([0, 1], 80)
    spots = rng.uniform(0, 1000, size=(80, 2))[tracks]
    features = spots + rng.normal(size=spots.shape)
    places = CellPlaces(np.zeros(160), tracks, t, spots, patch_px=40)
    assert np.isnan(lineage_retrieval(features, tracks, places).mean_average_precision.value)
    far = CellPlaces(np.zeros(160), tracks, t * 9, spots, patch_px=40)
    assert lineage_retrieval(features, tracks, far).recall[1].value > 0.3


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nearest_rows_are_those_of_a_sorted_loop(metric):
    features, lineages, _ = _cells(seed=5, coarse=False)
    rows, distances = nearest_rows(features, np.array([3, 40]), 6, groups=lineages, metric=metric)
    own = features - features.mean(axis=0)
    own = own / np.linalg.norm(own, axis=1, keepdims=True) if metric == "cosine" else own
    for query, found, near in zip((3, 40), rows, distances, strict=True):
        apart = np.linalg.norm(own - own[query], axis=1)
        apart[lineages == lineages[query]] = np.inf
        assert found.tolist() == np.argsort(apart)[:6].tolist()
        np.testing.assert_allclose(near, np.sort(apart)[:6], rtol=1e-4)


def test_nearest_rows_refuse_more_than_there_are():
    with pytest.raises(ValueError, match="k = 3 neighbours, but there are 2 cells"):
        nearest_rows(np.eye(4), np.array([0]), 3, groups=np.array([0, 0, 1, 2]))


def test_purity_is_the_mean_share_over_labels_and_looks_at_other_lineages():
    features, lineages, _ = _cells(seed=2, n_tracks=20, coarse=False)
    labels = np.where(lineages % 5 == 0, "rare", "common")
    found = knn_purity(features, labels, lineages, k=4)
    rows, _ = nearest_rows(features, np.arange(len(features)), 4, groups=lineages, metric="cosine")
    shares = (labels[rows] == labels[:, None]).mean(axis=1)
    assert found.value == pytest.approx(np.mean([shares[labels == name].mean() for name in ("rare", "common")]))
    assert found.chance == pytest.approx(0.5)
    per_lineage = np.random.default_rng(0).normal(size=(400, 8))
    lineages = np.arange(400)
    random = knn_purity(np.repeat(per_lineage, 5, 0), np.repeat(lineages % 2, 5), np.repeat(lineages, 5))
    assert abs(random.value - 0.5) < 0.05
    assert np.isnan(knn_purity(features, np.zeros(len(features)), np.arange(len(features))).value)
