"""Embeddings as pictures: the same points coloured by label, by experiment and by time, each with its score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from viscy_data.optional import from_extra
from viscy_data.stores import well_of
from viscy_utils.embeddings.reductions import reduce_features
from viscy_utils.evaluation.comparison import Comparison
from viscy_utils.evaluation.draws import draw_rows
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.probe import Score
from viscy_utils.reports.panels import draw_classes, draw_numbers

with from_extra("eval", package="viscy-utils"):
    import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = ["Layout", "draw_embeddings", "label_owner", "project", "time_axis"]

_TIME = "hours_post_infection"


class Layout(NamedTuple):
    """Some cells of an embedding in the plane.

    Parameters
    ----------
    rows : ndarray of int64, shape (K,)
        Which rows of the embedding.
    points : ndarray of float32, shape (K, 2)
    """

    rows: np.ndarray
    points: np.ndarray


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
    if len(features) < 3:
        return np.zeros((len(features), 2), np.float32)
    reduced = reduce_features("pca", features, {"n_components": 32, "random_state": seed})
    if len(features) < 5 or reduced.shape[1] < 3:
        return np.pad(reduced, ((0, 0), (0, 1)))[:, :2]
    # As good to look at as UMAP, and it need not be compiled for a minute before the first picture.
    return reduce_features("tsne", reduced, {"normalize_features": False, "random_state": seed})


def label_owner(obs: pd.DataFrame, label: str) -> str:
    """Say whether a label is of the wells (one for all cells of each), of the FOVs or of the cells.

    Returns
    -------
    {"well", "FOV", "cell"}
    """
    wells = obs["fov_name"].astype(str).map(well_of)
    for owner, place in (("well", wells), ("FOV", obs["fov_name"])):
        if (obs[label].astype(str).groupby([obs["experiment"], place], observed=True).nunique() <= 1).all():
            return owner
    return "cell"


def time_axis(obs: pd.DataFrame) -> tuple[str, np.ndarray] | None:
    """Return what time the cells are coloured by, and its values; None when the embeddings carry none.

    Hours are "hours post infection" where a recording says when the infection was, and otherwise just hours.
    """
    if _TIME not in obs:
        return None
    hours = pd.to_numeric(obs[_TIME], errors="coerce").to_numpy(dtype=float)
    starts = hours[obs["t"].to_numpy() == 0]
    named = bool(np.any(starts[np.isfinite(starts)] != 0)) if len(starts) else True
    return ("hours post infection" if named else "hours"), hours


def draw_embeddings(
    figure: Figure | SubFigure,
    embedded: Sequence[Embedded],
    comparisons: Sequence[Comparison],
    label: str,
    *,
    held_out: Sequence[str] = (),
    max_cells: int = 1000,
    layouts: Sequence[Layout] | None = None,
    seed: int = 0,
) -> None:
    """Draw one row of panels per embedding: label, experiment and, where it is known, time.

    Parameters
    ----------
    figure : matplotlib Figure or SubFigure
        Drawn into.
    embedded : sequence of Embedded
        One row each; at most ``max_cells`` points are drawn, laid out by :func:`project`.
    comparisons : sequence of Comparison
        What was found for each, for the titles.
    label : str
        Column of ``obs`` that colours the first panel.
    held_out : sequence of str
        Experiments that the probe was scored on; drawn as triangles.
    layouts : sequence of Layout, optional
        Of each embedding, where they are computed already; ``max_cells`` then says nothing.
    """
    if layouts is None:
        layouts = [_layout(each, max_cells, seed) for each in embedded]
    times = [time_axis(each.obs) for each in embedded]
    axes = figure.subplots(len(embedded), 3 if any(times) else 2, squeeze=False)
    for row, each, layout, found, time in zip(axes, embedded, layouts, comparisons, times, strict=True):
        # Points in random order: the last group must not cover the others.
        order = np.random.default_rng(seed).permutation(len(layout.rows))
        points, obs = layout.points[order], each.obs.iloc[layout.rows[order]]
        owner = label_owner(each.obs, label)
        draw_classes(row[0], points, obs[label].astype(str))
        row[0].set_title(f"{label} of the {owner}: probe{_words(found.probe)}", fontsize="medium")
        draw_classes(row[1], points, obs["experiment"].astype(str), tuple(held_out))
        row[1].set_title(f"experiment: told from neighbours{_words(found.separability)}", fontsize="medium")
        row[0].set_ylabel(f"{each.name}\nt-SNE, {len(points):,} of {len(each.obs):,} cells")
        if time is not None:
            draw_numbers(row[2], points, time_axis(obs)[1], "hours")
            row[2].set_title(f"{time[0]}: smoothness {found.smoothness:.2f}", fontsize="medium")
        elif any(times):
            row[2].set_visible(False)
        for axis in row:
            axis.set(xticks=[], yticks=[])


def _layout(embedded: Embedded, max_cells: int, seed: int) -> Layout:
    rows = draw_rows(len(embedded.obs), max_cells, seed)
    return Layout(rows, project(embedded.features[rows], seed))


def _words(score: Score) -> str:
    return f"\n{score}" + ("" if np.isnan(score.value) else f", n = {score.n_cells:,} cells")
