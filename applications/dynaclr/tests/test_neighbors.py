"""Near neighbours by stored embeddings."""

import doctest

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dynaclr.neighbors
from dynaclr.neighbors import anchor_neighbors, nearest_of_other_lineages
from viscy_data.errors import InputError
from viscy_utils.embeddings.store import build_anndata, observation_table, write_anndata


def cosine_order(features, row):
    """Rows by descending cosine to one of them, by a loop."""
    cosines = [
        float(np.dot(features[row], other) / (np.linalg.norm(features[row]) * np.linalg.norm(other)))
        for other in features
    ]
    return sorted(range(len(features)), key=lambda other: -cosines[other])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), n=st.integers(1, 40), n_lineages=st.integers(1, 6), k=st.integers(1, 6))
def test_neighbours_are_the_nearest_of_other_lineages(seed, n, n_lineages, k):
    rng = np.random.default_rng(seed)
    features, lineages = rng.normal(size=(n, 5)), rng.integers(0, n_lineages, n)
    found = nearest_of_other_lineages(features, lineages, k)
    for row in range(n):
        expected = [other for other in cosine_order(features, row) if lineages[other] != lineages[row]][:k]
        assert found[row].tolist() == expected + [-1] * (k - len(expected))


def test_many_rows_are_searched_approximately():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    features, lineages = rng.normal(size=(3000, 4)).astype(np.float32), np.arange(3000) // 10
    exact, approximate = (nearest_of_other_lineages(features, lineages, 5, limit) for limit in (3000, 10))
    shared = [len(set(one) & set(other)) for one, other in zip(exact.tolist(), approximate.tolist(), strict=True)]
    assert np.mean(shared) > 4.5
    assert (lineages[approximate] != lineages[:, None]).all()


def test_the_example_is_true():
    assert doctest.testmod(dynaclr.neighbors).failed == 0


@pytest.fixture
def anchors():
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"experiment": np.repeat(["first", "second"], 30), "fov_name": "A/1/0", "track_id": range(60)})
    return table.assign(t=rng.integers(0, 9, 60), lineage_id=np.arange(60) // 3)


def write(path, anchors, rows, features):
    obs = observation_table(anchors.iloc[rows][["experiment", "fov_name", "track_id", "t"]])
    write_anndata(build_anndata(features[rows], obs, {}), path)
    return path


def test_anchors_are_found_among_embeddings_in_any_order_and_the_missing_counted(anchors, tmp_path, caplog):
    rng = np.random.default_rng(4)
    features = rng.normal(size=(60, 3)).astype(np.float32)
    features[50] = np.nan
    rows = rng.permutation(np.delete(np.arange(60), [3, 40]))
    found = anchor_neighbors(anchors, write(tmp_path / "e.zarr", anchors, rows, features), 4)
    assert "3 of 60 anchors are not among the embeddings" in caplog.text
    lineage, experiment = anchors["lineage_id"], anchors["experiment"]
    for row in range(60):
        if row in (3, 40, 50):
            expected = [-1] * 4
        else:
            others = [other for other in range(60) if other not in (3, 40, 50) and experiment[other] == experiment[row]]
            order = [others[at] for at in cosine_order(features[others], others.index(row))]
            expected = [other for other in order if lineage[other] != lineage[row]][:4]
        assert found[row].tolist() == expected


def test_embeddings_of_other_experiments_are_refused(anchors, tmp_path):
    path = write(tmp_path / "e.zarr", anchors.assign(experiment="third"), np.arange(60), np.ones((60, 2), np.float32))
    with pytest.raises(InputError, match="none of the anchors, but cells of third"):
        anchor_neighbors(anchors, path)


def test_a_cell_that_is_embedded_twice_is_refused(anchors, tmp_path):
    path = write(tmp_path / "e.zarr", anchors, [0, 1, 1], np.ones((60, 2), np.float32))
    with pytest.raises(InputError, match=r"first/A/1/0/1/.* more than once"):
        anchor_neighbors(anchors, path)
