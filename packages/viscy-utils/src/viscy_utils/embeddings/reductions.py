"""Low-dimensional views of embeddings: PCA, t-SNE, UMAP, PHATE, PaCMAP; in one place, stored beside them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from viscy_data.optional import require
from viscy_utils.embeddings.store import add_array, edit_store

__all__ = ["add_reductions", "fit_reduction", "reduce_features", "require_reductions"]

_logger = logging.getLogger(__name__)

_DEFAULTS: dict[str, dict[str, Any]] = {
    "pca": {"n_components": 8, "random_state": 42},
    "tsne": {"n_components": 2, "perplexity": 30.0, "init": "pca", "random_state": 42},
    "umap": {"n_components": 2, "n_neighbors": 15, "random_state": 42},
    "phate": {"n_components": 2, "knn": 5, "decay": 40, "random_state": 42, "verbose": 0},
    "pacmap": {"n_components": 2, "n_neighbors": 10, "random_state": 42},
}
# Where a method is, and which extra has it.
_ESTIMATORS = {
    "pca": ("sklearn.decomposition", "PCA", "eval"),
    "tsne": ("sklearn.manifold", "TSNE", "eval"),
    "umap": ("umap", "UMAP", "eval"),
    "phate": ("phate", "PHATE", "phate"),
    "pacmap": ("pacmap", "PaCMAP", "pacmap"),
}
_NEIGHBOURS = {"umap": "n_neighbors", "phate": "knn", "pacmap": "n_neighbors"}


def reduce_features(method: str, features: np.ndarray, kwargs: Mapping[str, Any]) -> np.ndarray:
    """Reduce features to a few dimensions: the values of :func:`fit_reduction`, of which this takes the arguments."""
    return fit_reduction(method, features, kwargs)[1]


def fit_reduction(method: str, features: np.ndarray, kwargs: Mapping[str, Any]) -> tuple[Any, np.ndarray]:
    """Reduce standardised features to a few dimensions.

    Parameters
    ----------
    method : {"pca", "tsne", "umap", "phate", "pacmap"}
        Needs the extra ``eval``; PHATE, which is under the GPL, and PaCMAP the extra of their names as well.
    features : ndarray, shape (N, F)
        One row per observation.
    kwargs : mapping
        Arguments of the method over its defaults; the numbers of neighbours and components are capped for small
        data. An entry ``normalize_features`` (default True) tells whether features are standardised first.

    Returns
    -------
    model : object
        The fitted estimator.
    values : ndarray, shape (N, k), float32

    Raises
    ------
    ValueError
        For fewer than three rows.
    ImportError
        If the method is not installed; it names the extra.
    """
    n_rows, n_features = features.shape
    if n_rows < 3:
        raise ValueError(f"{method} needs at least 3 rows, got {n_rows}")
    options = {**_DEFAULTS[method], **kwargs}
    if method in _NEIGHBOURS:
        options[_NEIGHBOURS[method]] = min(options[_NEIGHBOURS[method]], n_rows - 1)
    elif method == "tsne":
        options["perplexity"] = min(options["perplexity"], (n_rows - 1) / 3)
    elif isinstance(options["n_components"], int):
        options["n_components"] = min(options["n_components"], n_rows, n_features)
    if options.pop("normalize_features", True):
        scaler = require("sklearn.preprocessing", extra="eval", package="viscy-utils").StandardScaler()
        features = scaler.fit_transform(features)
    model = _estimator(method)(**options)
    return model, np.asarray(model.fit_transform(features), np.float32)


def _estimator(method: str) -> Any:
    module, name, extra = _ESTIMATORS[method]
    return getattr(require(module, extra=extra, package="viscy-utils"), name)


def require_reductions(requested: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Check that what :func:`add_reductions` will need is installed, before there is anything to lose.

    Raises
    ------
    ImportError
        Naming the extra.
    """
    for method, kwargs in requested.items():
        if kwargs:
            _estimator(method)


def add_reductions(path: Path, requested: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Compute reductions of a store's features and add each to it as ``obsm["X_<method>"]``.

    A reduction that fails is warned about and left out: the embeddings are on disk already and stay.

    Parameters
    ----------
    path : Path
        AnnData store.
    requested : mapping
        Method to its arguments; a method with None or an empty mapping is not computed.
    """
    for method, kwargs in requested.items():
        if not kwargs:
            continue
        features = np.asarray(zarr.open_array(f"{path}/X", mode="r"))
        try:
            values = reduce_features(method, features, kwargs)
        except Exception as err:
            _logger.warning("no %s: %s: %s", method, type(err).__name__, err, exc_info=True)
            continue
        with edit_store(path) as group:
            add_array(group, f"obsm/X_{method}", values.shape)[:] = values
