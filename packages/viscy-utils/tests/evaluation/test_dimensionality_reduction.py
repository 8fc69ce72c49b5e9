"""Projections of datasets."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from viscy_utils.evaluation.dimensionality_reduction import compute_pca, compute_phate, compute_umap


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 5)) * [1, 10, 1, 1, 1]
    coords = {
        "fov_name": np.repeat("A/1/0", 20),
        "id": np.arange(20),
        "track_id": np.arange(20) // 4,
        "t": np.arange(20) % 4,
    }
    return xr.Dataset(
        {"features": (("sample", "features"), features), "projections": (("sample", "projection"), features[:, :3])},
        {name: ("sample", values) for name, values in coords.items()},
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_components_are_those_of_a_singular_value_decomposition(dataset, normalize):
    features = dataset["features"].values
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) if normalize else 1)
    _, _, axes = np.linalg.svd(scaled, full_matrices=False)
    values, table = compute_pca(dataset, 3, normalize_features=normalize)
    assert values.shape == (20, 3)
    np.testing.assert_allclose(np.abs(values), np.abs(scaled @ axes[:3].T), atol=1e-4)
    np.testing.assert_array_equal(table[["PC1", "PC2", "PC3"]].to_numpy(), values)
    assert table["id"].tolist() == list(range(20))
    again, bare = compute_pca(features, normalize_features=normalize)
    assert again.shape == (20, 5)
    assert bare.columns.tolist() == [f"PC{k}" for k in range(1, 6)]
    np.testing.assert_allclose(again[:, :3], values, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_umap_of_features_and_projections(dataset):
    pytest.importorskip("umap")
    of_features, of_projections, table = compute_umap(dataset)
    assert of_features.embedding_.shape == of_projections.embedding_.shape == (20, 2)
    np.testing.assert_allclose(table[["UMAP1_proj", "UMAP2_proj"]], of_projections.embedding_)
    assert table["track_id"].tolist() == dataset["track_id"].values.tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_phate_updates_the_dataset_when_asked(dataset):
    pytest.importorskip("phate")
    _, values = compute_phate(dataset, update_dataset=True, verbose=0)
    assert values.shape == (20, 2)
    np.testing.assert_array_equal(dataset["PHATE2"], values[:, 1])
    with pytest.raises(TypeError, match="array"):
        compute_phate(dataset["features"].values, update_dataset=True)
