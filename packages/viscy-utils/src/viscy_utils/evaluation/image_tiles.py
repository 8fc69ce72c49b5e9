"""Pages of small images: blocks of tiles, each tile with its title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from viscy_data.optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["Block", "Tile", "contrast_limits", "draw_blocks", "page_size", "scale_bar_length"]

_WIDTH, _GAP, _LINE, _MARGIN = 1.6, 0.07, 0.14, 0.18  # inches
_BLOCK_GAP = 0.3


class Tile(NamedTuple):
    """One image.

    Parameters
    ----------
    image : ndarray, shape (Y, X)
    title : str
        One or two lines.
    cmap : str
    limits : tuple of float
        Values of the first and the last colour.
    frame : str, optional
        Colour of a frame.
    place : tuple of float, optional
        Y and X in pixels of what the image is about, marked by a cross if it is in the image.
    um_per_px : float, optional
        Draws a scale bar: micrometres per pixel, or 0 for a bar in pixels where the size is not known.
    """

    image: NDArray
    title: str = ""
    cmap: str = "gray"
    limits: tuple[float, float] = (0.0, 1.0)
    frame: str | None = None
    place: tuple[float, float] | None = None
    um_per_px: float | None = None


class Block(NamedTuple):
    """What belongs together, such as a sample: rows of tiles.

    Parameters
    ----------
    rows : list of list of Tile
    labels : list of str
        Of the rows; empty strings for none.
    title : str
        Above the rows; may have several lines.
    """

    rows: list[list[Tile]]
    labels: list[str]
    title: str = ""


def contrast_limits(image: NDArray, percentiles: tuple[float, float] = (0.5, 99.5)) -> tuple[float, float]:
    """Return the values to show as black and white: percentiles of the finite pixels, never equal.

    >>> contrast_limits(np.zeros((2, 2)))
    (0.0, 1.0)
    """
    finite = np.asarray(image)[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    low, high = map(float, np.percentile(finite, percentiles))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low, low + 1.0)


def scale_bar_length(width: float) -> float:
    """Return the length of a scale bar: 1, 2 or 5 times a power of ten, a fifth to a half of a width.

    >>> [scale_bar_length(width) for width in (9.0, 24.0, 150.0)]
    [2.0, 10.0, 50.0]
    """
    power = 10.0 ** np.floor(np.log10(width / 2))
    return float(max(step * power for step in (1, 2, 5) if step * power <= width / 2))


def page_size(blocks: Sequence[Block], headline: str, n_columns: int | None = None) -> tuple[float, float]:
    """Return the width and height in inches of a page of blocks.

    Parameters
    ----------
    blocks : sequence of Block
        Images of one size.
    headline : str
        May be empty.
    n_columns : int, optional
        Blocks beside each other; by default the page is about as wide as it is high.
    """
    layout = _Layout(blocks)
    n_columns = n_columns or _n_columns(len(blocks), layout.width, layout.height)
    n_rows = -(-len(blocks) // n_columns)
    return n_columns * layout.width - _BLOCK_GAP + 2 * _MARGIN, n_rows * layout.height + _head(headline) + _MARGIN


def draw_blocks(
    blocks: Sequence[Block], headline: str, figure: Figure | SubFigure, n_columns: int | None = None
) -> Figure | SubFigure:
    """Lay blocks of one shape out on a page.

    Parameters
    ----------
    blocks : sequence of Block
        Images of one size.
    headline : str
        May be empty.
    figure : Figure or SubFigure
        Empty one to draw into. The size of a figure is set; a part of one should have the proportions of
        :func:`page_size`.
    n_columns : int, optional
        As in :func:`page_size`.
    """
    layout = _Layout(blocks)
    n_columns = n_columns or _n_columns(len(blocks), layout.width, layout.height)
    page = page_size(blocks, headline, n_columns)
    if hasattr(figure, "set_size_inches"):  # a part of a figure has no size of its own
        figure.set_size_inches(page)
    for number, block in enumerate(blocks):
        left = _MARGIN + (number % n_columns) * layout.width
        top = page[1] - _head(headline) - (number // n_columns) * layout.height
        if block.title:
            figure.text(left / page[0], top / page[1], block.title, fontsize=7, va="top", linespacing=1.2)
        for row, label, bottom in zip(block.rows, block.labels, layout.bottoms, strict=True):
            for column, tile in enumerate(row):
                x, y = left + layout.label_width + column * (_WIDTH + _GAP), top - bottom
                box = (x / page[0], y / page[1], _WIDTH / page[0], layout.tile_height / page[1])
                _draw_tile(figure.add_axes(box), tile, "" if column else label)
    if headline:
        figure.suptitle(headline, fontsize=10, y=1 - 0.08 / page[1], va="top")
    return figure


def _head(headline: str) -> float:
    return 0.35 if headline else 0.0


class _Layout:
    """Sizes in inches of blocks that are all alike."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        rows = blocks[0].rows
        height, width = rows[0][0].image.shape
        self.tile_height = _WIDTH * float(np.clip(height / width, 0.25, 4))
        self.label_width = _LINE if any(blocks[0].labels) else 0.0
        self.width = self.label_width + len(rows[0]) * (_WIDTH + _GAP) + _BLOCK_GAP
        n_lines = max(block.title.count("\n") + 1 if block.title else 0 for block in blocks)
        self.bottoms, self.height = [], n_lines * _LINE  # of the rows, below the top of the block
        for number in range(len(rows)):
            titles = [tile.title for block in blocks for tile in block.rows[number]]
            n_lines = max(title.count("\n") + 1 if title else 0 for title in titles)
            self.height += n_lines * _LINE + _GAP + self.tile_height
            self.bottoms.append(self.height)
        self.height += _BLOCK_GAP / 2


def _n_columns(n_blocks: int, width: float, height: float) -> int:
    """Choose a page that is neither long nor has many empty places."""

    def badness(n_columns: int) -> float:
        n_rows = -(-n_blocks // n_columns)
        empty = 1 - n_blocks / (n_columns * n_rows)
        return abs(np.log(n_columns * width / (n_rows * height))) + 4 * empty

    return min(range(1, n_blocks + 1), key=badness)


def _draw_tile(axes: Axes, tile: Tile, label: str) -> None:
    low, high = tile.limits
    axes.imshow(tile.image, cmap=tile.cmap, vmin=low, vmax=high, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(tile.title, fontsize=6.5, pad=3, linespacing=1.1)
    axes.set_ylabel(label, fontsize=7, labelpad=2)
    if tile.place is not None and _is_inside(tile.place, tile.image.shape):
        axes.plot(tile.place[1], tile.place[0], marker="+", color="tab:red", markersize=7, markeredgewidth=1)
    if tile.um_per_px is not None:
        _draw_scale_bar(axes, tile.image.shape, tile.um_per_px)
    for spine in axes.spines.values():
        spine.set(color=tile.frame or "0.7", linewidth=2.5 if tile.frame else 0.5)


def _is_inside(place: tuple[float, float], shape: tuple[int, ...]) -> bool:
    return all(-0.5 <= coordinate < size - 0.5 for coordinate, size in zip(place, shape, strict=True))


def _draw_scale_bar(axes: Axes, shape: tuple[int, ...], um_per_px: float) -> None:
    """Draw a bar with its length into the lower right corner."""
    height, width = shape
    length = scale_bar_length(width * (um_per_px or 1.0))
    end, line = width * 0.95 - 0.5, height * 0.95 - 0.5
    start = end - length / (um_per_px or 1.0)
    effects = require("matplotlib.patheffects", extra="plot", package="viscy-utils")
    outline = [effects.withStroke(linewidth=2, foreground="black")]
    axes.plot([start, end], [line, line], color="white", linewidth=2, path_effects=[effects.withStroke(linewidth=3.5)])
    words = f"{length:g} {'µm' if um_per_px else 'px'}"
    place = ((start + end) / 2, line - 0.03 * height)
    axes.text(*place, words, color="white", fontsize=6, ha="center", va="bottom", path_effects=outline)
