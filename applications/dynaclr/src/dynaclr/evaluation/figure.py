"""Embeddings and pairs of cells on one picture."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from dynaclr.pair_page import PairImages, draw_pairs, pair_grid_size
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.embedding_pictures import draw_embeddings

__all__ = ["draw_report"]

_WIDTH = 13.0  # inches


def draw_report(embedded: Sequence[Embedded], label: str, pairs: PairImages | None = None, *, seed: int = 0) -> Figure:
    """Draw embeddings, and below them pairs of cells that were pulled together, if given."""
    heights = [3.6 * len(embedded)]
    if pairs is not None:
        width, height = pair_grid_size(pairs)
        heights.append(height * _WIDTH / width)
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    draw_embeddings(parts[0], embedded, label, seed=seed)
    if pairs is not None:
        parts[1].suptitle("Anchors (left) and their positives (right)", fontsize="medium")
        draw_pairs(parts[1], pairs)
    return figure
