"""Pages of small images: blocks of tiles, each tile with its title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = ["Block", "Tile", "contrast_limits", "draw_blocks"]

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
    """

    image: NDArray
    title: str = ""
    cmap: str = "gray"
    limits: tuple[float, float] = (0.0, 1.0)
    frame: str | None = None


class Block(NamedTuple):
    """What belongs together, such as a sample: rows of tiles.

    Parameters
    ----------
    rows : list of list of Tile
    labels : list of str
        Of the rows; empty strings for none.
    """

    rows: list[list[Tile]]
    labels: list[str]


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


def draw_blocks(blocks: Sequence[Block], headline: str, figure: Figure) -> Figure:
    """Lay blocks of one shape out on a page that is about as wide as it is high.

    Parameters
    ----------
    blocks : sequence of Block
        Images of one size.
    headline : str
        May be empty.
    figure : Figure
        Empty one to draw into; its size is set.
    """
    layout = _Layout(blocks)
    n_columns = _n_columns(len(blocks), layout.width, layout.height)
    n_rows = -(-len(blocks) // n_columns)
    head = 0.35 if headline else 0.0
    page = (n_columns * layout.width - _BLOCK_GAP + 2 * _MARGIN, n_rows * layout.height + head + _MARGIN)
    figure.set_size_inches(page)
    for number, block in enumerate(blocks):
        left = _MARGIN + (number % n_columns) * layout.width + layout.label_width
        top = page[1] - head - (number // n_columns) * layout.height
        for row, label, bottom in zip(block.rows, block.labels, layout.bottoms, strict=True):
            for column, tile in enumerate(row):
                x, y = left + column * (_WIDTH + _GAP), top - bottom
                box = (x / page[0], y / page[1], _WIDTH / page[0], layout.tile_height / page[1])
                _draw_tile(figure.add_axes(box), tile, "" if column else label)
    if headline:
        figure.suptitle(headline, fontsize=10, y=1 - 0.08 / page[1], va="top")
    return figure


class _Layout:
    """Sizes in inches of blocks that are all alike."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        rows = blocks[0].rows
        height, width = rows[0][0].image.shape
        self.tile_height = _WIDTH * float(np.clip(height / width, 0.25, 4))
        self.label_width = _LINE if any(blocks[0].labels) else 0.0
        self.width = self.label_width + len(rows[0]) * (_WIDTH + _GAP) + _BLOCK_GAP
        self.bottoms, self.height = [], 0.0  # of the rows, below the top of the block
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
    for spine in axes.spines.values():
        spine.set(color=tile.frame or "0.7", linewidth=2.5 if tile.frame else 0.5)
