"""Projections of a dataset of embeddings, with the columns that identify its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from viscy_utils.embeddings.reductions import fit_reduction

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["compute_pca", "compute_phate", "compute_umap"]

_COLUMNS = ("id", "fov_name", "t", "track_id")


def compute_pca(
    embedding_dataset: xr.Dataset | NDArray, n_components: int | None = None, normalize_features: bool = True
) -> tuple[NDArray, pd.DataFrame]:
    """Project features onto their principal components.

    Parameters
    ----------
    embedding_dataset : xarray.Dataset or ndarray, shape (N, F)
        A dataset with ``features``, or the features.
    n_components : int, optional
        As many as there can be by default, and at most.
    normalize_features : bool, default True
        Standardise features first.

    Returns
    -------
    values : ndarray of float32, shape (N, n_components)
    table : DataFrame
        ``PC1``, ``PC2``, ... and, of a dataset, those of ``id``, ``fov_name``, ``t``, ``track_id`` that it has.
    """
    features = _features(embedding_dataset)
    kept = min(n_components or min(features.shape), *features.shape)
    options = {"n_components": kept, "normalize_features": normalize_features}
    values = fit_reduction("pca", features, options)[1]
    return values, _table(embedding_dataset, {f"PC{number}": axis for number, axis in enumerate(values.T, start=1)})


def compute_umap(embedding_dataset: xr.Dataset, normalize_features: bool = True) -> tuple[Any, Any, pd.DataFrame]:
    """Lay features and projections of a dataset out in the plane by UMAP.

    Parameters
    ----------
    embedding_dataset : xarray.Dataset
        With ``features`` and ``projections``.
    normalize_features : bool, default True
        Standardise both first.

    Returns
    -------
    model_features, model_projections : umap.UMAP
    table : DataFrame
        ``id, track_id, t, fov_name`` as far as the dataset has them, ``UMAP1, UMAP2, UMAP1_proj, UMAP2_proj``.
    """
    models, columns = [], {}
    for name, end in (("features", ""), ("projections", "_proj")):
        options = {"normalize_features": normalize_features}
        model, values = fit_reduction("umap", _features(embedding_dataset, name), options)
        models.append(model)
        columns |= {f"UMAP{number}{end}": axis for number, axis in enumerate(values.T, start=1)}
    return *models, _table(embedding_dataset, columns)


def compute_phate(
    embedding_dataset: xr.Dataset | NDArray,
    scale_embeddings: bool = False,
    n_components: int = 2,
    knn: int = 5,
    decay: int = 40,
    update_dataset: bool = False,
    random_state: int = 42,
    **phate_kwargs: Any,
) -> tuple[Any, NDArray]:
    """Lay features out by PHATE (Moon et al. 2019).

    Parameters
    ----------
    embedding_dataset : xarray.Dataset or ndarray, shape (N, F)
        A dataset with ``features``, or the features.
    scale_embeddings : bool, default False
        Standardise features first.
    n_components, knn, decay, random_state, **phate_kwargs
        Of ``phate.PHATE``; ``knn`` is capped for small data.
    update_dataset : bool, default False
        Add the axes to the dataset as coordinates ``PHATE1``, ``PHATE2``, ...

    Returns
    -------
    model : phate.PHATE
    values : ndarray of float32, shape (N, n_components)

    Raises
    ------
    ImportError
        If PHATE is not installed.
    TypeError
        If there is no dataset to update.
    """
    if update_dataset and isinstance(embedding_dataset, np.ndarray):
        raise TypeError("update_dataset needs a dataset, found an array")
    options = {"n_components": n_components, "knn": knn, "decay": decay, "random_state": random_state}
    options |= {"normalize_features": scale_embeddings, **phate_kwargs}
    model, values = fit_reduction("phate", _features(embedding_dataset), options)
    if update_dataset:
        for number, axis in enumerate(values.T, start=1):
            embedding_dataset.coords[f"PHATE{number}"] = ("sample", axis)
    return model, values


def _features(dataset: xr.Dataset | NDArray, name: str = "features") -> NDArray:
    return np.asarray(dataset if isinstance(dataset, np.ndarray) else dataset[name])


def _table(dataset: xr.Dataset | NDArray, columns: dict[str, NDArray]) -> pd.DataFrame:
    import pandas as pd

    own = (
        {} if isinstance(dataset, np.ndarray) else {name: dataset[name] for name in _COLUMNS if name in dataset.coords}
    )
    return pd.DataFrame({name: np.asarray(values) for name, values in own.items()} | columns)
