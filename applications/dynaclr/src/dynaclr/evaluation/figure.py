"""Embeddings and pairs of cells on one picture."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from dynaclr.pair_page import PAIRS_HEADLINE, PairImages, pair_blocks
from viscy_utils.evaluation.comparison import Comparison
from viscy_utils.evaluation.curves_picture import draw_curves
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.embedding_pictures import Layout, draw_embeddings
from viscy_utils.evaluation.image_tiles import draw_blocks, page_size
from viscy_utils.evaluation.mixing_picture import draw_mixing

__all__ = ["draw_curves_picture", "draw_mixing_picture", "draw_report"]

_WIDTH = 15.0  # inches
_N_PAIRS_BESIDE = 4


def draw_report(
    embedded: Sequence[Embedded],
    comparisons: Sequence[Comparison],
    label: str,
    layouts: Sequence[Layout],
    pairs: PairImages | None = None,
    *,
    held_out: Sequence[str] = (),
) -> Figure:
    """Draw embeddings as they are laid out, and below them pairs of cells that were pulled together, if given."""
    heights = [3.8 * len(embedded)]
    if pairs is not None:
        blocks = pair_blocks(pairs)
        n_columns = min(_N_PAIRS_BESIDE, len(blocks))
        width, height = page_size(blocks, PAIRS_HEADLINE, n_columns)
        heights.append(height * _WIDTH / width)
    figure = Figure(figsize=(_WIDTH, sum(heights)))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    figure.set_layout_engine("constrained")
    draw_embeddings(parts[0], embedded, comparisons, label, held_out=held_out, layouts=layouts)
    if pairs is not None:
        draw_blocks(blocks, PAIRS_HEADLINE, parts[1], n_columns)
    return figure


def draw_mixing_picture(comparisons: Sequence[Comparison], label: str) -> Figure:
    """Draw biology against mixing."""
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    draw_mixing(figure.subplots(), comparisons, label)
    return figure


def draw_curves_picture(comparisons: Sequence[Comparison], label: str) -> Figure:
    """Draw figures by time and by number of labels, as a picture of its own."""
    figure = Figure(layout="constrained")
    draw_curves(figure, comparisons, label)
    return figure
