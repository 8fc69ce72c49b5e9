"""Embeddings as pictures: the same points coloured by condition, by experiment and by time."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from dynaclr.evaluation.embedded import Embedded

__all__ = ["draw_embeddings", "project"]


def project(features: np.ndarray, seed: int = 0) -> tuple[np.ndarray, str]:
    """Lay features out in the plane.

    Parameters
    ----------
    features : ndarray of float32, shape (N, F)
        Standardised before the projection.
    seed : int, default 0
        Of the layout.

    Returns
    -------
    ndarray of float32, shape (N, 2)
        UMAP where umap-learn is installed (``dynaclr[eval]``), else the first two principal components.
    str
        Name of the method, for the axes.
    """
    scaled = StandardScaler().fit_transform(features)
    if len(scaled) > 15 and find_spec("umap"):
        from umap import UMAP

        reduced = PCA(min(32, *scaled.shape), random_state=seed).fit_transform(scaled)
        return UMAP(random_state=seed, n_jobs=1).fit_transform(reduced), "UMAP"
    return PCA(2, random_state=seed).fit_transform(scaled), "PC"


def draw_embeddings(
    figure: SubFigure, embedded: Sequence[Embedded], label: str, *, max_cells: int = 1500, seed: int = 0
) -> None:
    """Draw one row of panels per embedding: label, experiment, hours post infection.

    Parameters
    ----------
    figure : matplotlib SubFigure or Figure
        Drawn into.
    embedded : sequence of Embedded
        One row each; at most ``max_cells`` points are drawn.
    label : str
        Column of ``obs`` that colours the first panel.
    """
    axes = figure.subplots(len(embedded), 3, squeeze=False)
    for axis, title in zip(axes[0], (label, "experiment", "hours post infection"), strict=True):
        axis.set_title(f"coloured by {title}")
    for row, each in zip(axes, embedded, strict=True):
        cells = each.sample(max_cells, seed)
        points, method = project(cells.features, seed)
        # Points in random order: the last group must not cover the others.
        order = np.random.default_rng(seed).permutation(len(points))
        points, obs = points[order], cells.obs.iloc[order]
        _categories(row[0], points, obs[label].astype(str).to_numpy())
        _categories(row[1], points, obs["experiment"].astype(str).to_numpy())
        dots = row[2].scatter(*points.T, c=obs["hours_post_infection"], s=4, linewidths=0, cmap="viridis")
        figure.colorbar(dots, ax=row[2], label="hours")
        row[0].set_ylabel(f"{each.name}\n{method} 2")
        for axis in row:
            axis.set(xticks=[], yticks=[], xlabel=f"{method} 1")


def _categories(axis: Axes, points: np.ndarray, values: np.ndarray) -> None:
    for number, value in enumerate(np.unique(values)):
        chosen = values == value
        axis.scatter(*points[chosen].T, s=4, linewidths=0, color=f"C{number}", label=value)
    axis.legend(markerscale=3, fontsize="small", loc="upper right", framealpha=0.8)
