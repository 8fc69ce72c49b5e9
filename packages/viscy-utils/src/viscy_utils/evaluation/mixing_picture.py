"""Biology against mixing on one picture: how well embeddings carry a label, and how well they mix experiments."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.optional import require
from viscy_utils.evaluation.comparison import Comparison
from viscy_utils.evaluation.scores import Score
from viscy_utils.reports.panels import class_colors, css_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_mixing", "mixing_figure"]

_MIXING = "experiment told from neighbours (balanced accuracy; to the right: better mixed)"
_INK = "#5a6270"
_MARGIN = 0.06


def draw_mixing(axis: Axes, comparisons: Sequence[Comparison], label: str) -> None:
    """Draw each embedding as a point with its 95 % intervals; what is good is above and to the right.

    Parameters
    ----------
    axis : matplotlib Axes
        Drawn into, with a legend beside it.
    comparisons : sequence of Comparison
        Those without one of the scores are left out; the legend says so.
    label : str
        What was probed.
    """
    colors = class_colors([row.name for row in comparisons])
    for row, color in zip(comparisons, colors, strict=True):
        if _is_drawn(row):
            options = {"xerr": _bars(row.separability), "yerr": _bars(row.probe), "capsize": 3, "fmt": "o"}
            axis.errorbar(row.separability.value, row.probe.value, color=color, label=row.name, **options)
        else:
            axis.scatter([], [], color=color, label=f"{row.name} (not computed)")
    for row in filter(_is_drawn, comparisons[:1]):
        axis.axhline(row.probe.chance, color=_INK, linestyle=":", linewidth=1)
        axis.axvline(row.separability.chance, color=_INK, linestyle=":", linewidth=1)
    x, y = _ranges(comparisons)
    axis.set(xlim=x[::-1], ylim=y, xlabel=_MIXING, ylabel=_biology(label))
    axis.set_title("Biology against mixing; dotted: chance", fontsize="medium", loc="left")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def mixing_figure(comparisons: Sequence[Comparison], label: str) -> Any:
    """Make the same picture as a figure of plotly, for a page."""
    graphs = require("plotly.graph_objects", extra="report", package="viscy-utils")
    colors = [css_color(color) for color in class_colors([row.name for row in comparisons])]
    figure = graphs.Figure()
    for row, color in zip(comparisons, colors, strict=True):
        if not _is_drawn(row):
            continue
        bars = {
            f"error_{axis}": {"array": _bars(score)[1], "arrayminus": _bars(score)[0], "width": 4, "thickness": 1.5}
            for axis, score in (("x", row.separability), ("y", row.probe))
        }
        name = escape(row.name, quote=False)
        text = f"{name}<br>probe {row.probe.value:.3f}<br>experiment {row.separability.value:.3f}<extra></extra>"
        marker = {"size": 12, "color": color, "line": {"color": "white", "width": 1}}
        place = {"x": [row.separability.value], "y": [row.probe.value], "marker": marker}
        figure.add_scatter(**place, **bars, mode="markers", name=name, hovertemplate=text)
    for row in filter(_is_drawn, comparisons[:1]):
        line = {"line": {"color": _INK, "width": 1, "dash": "dot"}}
        figure.add_hline(row.probe.chance, annotation_text="chance", annotation_position="bottom left", **line)
        figure.add_vline(row.separability.chance, annotation_text="mixed", annotation_position="bottom left", **line)
    x, y = _ranges(comparisons)
    grid = {"gridcolor": "#eef0f4", "zeroline": False, "linecolor": "#d7dbe2", "mirror": True}
    figure.update_layout(
        template="none",
        xaxis={"title": {"text": _MIXING, "font": {"size": 13}}, "range": x[::-1], **grid},
        yaxis={"title": {"text": escape(_biology(label), quote=False), "font": {"size": 13}}, "range": y} | grid,
        margin={"l": 60, "r": 20, "t": 20, "b": 55},
        legend={"x": 1.02, "y": 1, "xanchor": "left"},
        showlegend=True,
        height=430,
        font={"family": 'system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif'},
    )
    return figure


def _biology(label: str) -> str:
    return f"probe of {label} (balanced accuracy)"


def _ranges(comparisons: Sequence[Comparison]) -> tuple[list[float], list[float]]:
    """Return the ends of the axes: intervals and chance lie between them."""
    rows = list(filter(_is_drawn, comparisons))
    ranges = []
    for scores in ([row.separability for row in rows], [row.probe for row in rows]):
        ends = [end for score in scores for end in (score.low, score.high, score.chance)] or [0, 1]
        ranges.append([min(ends) - _MARGIN, max(ends) + _MARGIN])
    return ranges[0], ranges[1]


def _is_drawn(row: Comparison) -> bool:
    return not np.isnan(row.probe.value) and not np.isnan(row.separability.value)


def _bars(score: Score) -> np.ndarray:
    """Lengths of the interval below and above the value, shape (2, 1)."""
    return np.maximum([[score.value - score.low], [score.high - score.value]], 0)
