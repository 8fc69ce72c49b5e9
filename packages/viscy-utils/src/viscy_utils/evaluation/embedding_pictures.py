"""Embeddings as pictures: the same points coloured by condition, by experiment and by time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from viscy_utils.evaluation.embedded import Embedded

__all__ = ["draw_embeddings", "project"]


def project(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Lay features out in the plane, neighbours beside neighbours.

    Parameters
    ----------
    features : ndarray of float32, shape (N, F)
        Standardised, and reduced to 32 principal components first.
    seed : int, default 0
        Of the layout.

    Returns
    -------
    ndarray of float32, shape (N, 2)
        t-SNE (van der Maaten and Hinton 2008); of fewer than 5 rows the first two principal components.
    """
    scaled = StandardScaler().fit_transform(features)
    reduced = PCA(min(32, *scaled.shape), random_state=seed).fit_transform(scaled)
    if len(scaled) < 5:
        return reduced[:, :2]
    # As good to look at as UMAP, and it need not be compiled for a minute before the first picture.
    perplexity = min(30, (len(scaled) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(reduced)


def draw_embeddings(
    figure: Figure | SubFigure, embedded: Sequence[Embedded], label: str, *, max_cells: int = 1000, seed: int = 0
) -> None:
    """Draw one row of panels per embedding: label, experiment, hours post infection.

    Parameters
    ----------
    figure : matplotlib Figure or SubFigure
        Drawn into.
    embedded : sequence of Embedded
        One row each; at most ``max_cells`` points are drawn.
    label : str
        Column of ``obs`` that colours the first panel.
    """
    axes = figure.subplots(len(embedded), 3, squeeze=False)
    for axis, title in zip(axes[0], (label, "experiment", "hours post infection"), strict=True):
        axis.set_title(f"t-SNE, coloured by {title}")
    for row, each in zip(axes, embedded, strict=True):
        cells = each.sample(max_cells, seed)
        points = project(cells.features, seed)
        # Points in random order: the last group must not cover the others.
        order = np.random.default_rng(seed).permutation(len(points))
        points, obs = points[order], cells.obs.iloc[order]
        _categories(row[0], points, obs[label].astype(str).to_numpy())
        _categories(row[1], points, obs["experiment"].astype(str).to_numpy())
        dots = row[2].scatter(*points.T, c=obs["hours_post_infection"], s=4, linewidths=0, cmap="viridis")
        figure.colorbar(dots, ax=row[2], label="hours")
        row[0].set_ylabel(each.name)
        for axis in row:
            axis.set(xticks=[], yticks=[])


def _categories(axis: Axes, points: np.ndarray, values: np.ndarray) -> None:
    for number, value in enumerate(np.unique(values)):
        chosen = values == value
        axis.scatter(*points[chosen].T, s=4, linewidths=0, color=f"C{number}", label=value)
    axis.legend(markerscale=3, fontsize="small", loc="upper right", framealpha=0.8)
