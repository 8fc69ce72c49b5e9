"""Panels of pictures: cells as points, coloured by classes or by a number, the legend beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from viscy_data.optional import require

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["class_colors", "css_color", "draw_classes", "draw_numbers"]

_MOST_LISTED = 20


def class_colors(names: list[str]) -> list[tuple[float, ...]]:
    """Choose a colour per class that can be told from the others; of more than ten, along a scale."""
    colormaps = require("matplotlib", extra="plot", package="viscy-utils").colormaps
    if len(names) <= 10:
        return [colormaps["tab10"](number) for number in range(len(names))]
    return [colormaps["turbo"](share) for share in np.linspace(0.05, 0.95, len(names))]


def css_color(color: tuple[float, ...]) -> str:
    """Write a colour of matplotlib for a page.

    >>> css_color((1.0, 0.5, 0.0, 1.0))
    'rgb(255, 128, 0)'
    """
    return f"rgb({', '.join(str(round(255 * part)) for part in color[:3])})"


def draw_classes(
    axis: Axes, points: np.ndarray, values: pd.Series, held_out: tuple[str, ...] = (), *, size: float = 5
) -> None:
    """Colour points by class, with a legend beside the panel.

    Parameters
    ----------
    axis : Axes
    points : ndarray, shape (N, 2)
        Drawn in their order, so that no class covers another when it is random.
    values : Series of str, shape (N,)
        Class per point.
    held_out : tuple of str
        Classes that are drawn as triangles and named so.
    size : float, default 5
        Area of a point, in square points.
    """
    names = sorted(values.unique())
    colors = dict(zip(names, class_colors(names), strict=True))
    shades = np.array([colors[value] for value in values])
    marked = values.isin(held_out).to_numpy()
    for chosen, marker in ((~marked, "o"), (marked, "^")):
        axis.scatter(*points[chosen].T, c=shades[chosen], marker=marker, s=size, linewidths=0)
    for name in names[:_MOST_LISTED]:
        label, marker = (f"{name} (held out)", "^") if name in held_out else (name, "o")
        axis.scatter([], [], color=[colors[name]], marker=marker, label=label, s=25)
    if len(names) > _MOST_LISTED:
        axis.scatter([], [], alpha=0, label=f"and {len(names) - _MOST_LISTED} more")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", frameon=False, handletextpad=0.1)


def draw_numbers(axis: Axes, points: np.ndarray, values: np.ndarray, label: str, *, size: float = 5) -> None:
    """Colour points by a number, with a colour bar beside the panel.

    Parameters
    ----------
    axis : Axes
    points : ndarray, shape (N, 2)
    values : ndarray of float, shape (N,)
        Points without one are grey.
    label : str
        Of the colour bar, with the unit.
    size : float, default 5
        Area of a point, in square points.
    """
    known = np.isfinite(values)
    axis.scatter(*points[~known].T, color="0.8", s=size, linewidths=0)
    dots = axis.scatter(*points[known].T, c=values[known], cmap="viridis", s=size, linewidths=0)
    axis.figure.colorbar(dots, ax=axis, label=label)
