"""Curves of embeddings beside each other, as a picture and for a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.optional import require
from viscy_utils.evaluation.comparison import Comparison
from viscy_utils.evaluation.curves import CURVES, N_LINEAGES, Curve, CurveKind
from viscy_utils.reports.panels import class_colors, css_color

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curves_figure", "draw_curves"]

_INK = "#5a6270"
_STYLES = (("-", "solid"), ("--", "dash"), (":", "dot"), ("-.", "dashdot"))
_MARKERS = (("o", "circle"), ("s", "square"), ("^", "triangle-up"), ("D", "diamond"))
_COLUMNS = 2


def _kinds(comparisons: Sequence[Comparison]) -> list[CurveKind]:
    """List what there are curves of."""
    found = {curve.measure for row in comparisons for curve in row.curves}
    return [kind for kind in CURVES if kind.name in found]


def _drawn(comparisons: Sequence[Comparison], kind: CurveKind) -> Iterator[tuple[str, tuple, int, Curve]]:
    """Yield the name of the embedding, colour, number among its curves of the kind, and curve."""
    colors = class_colors([row.name for row in comparisons])
    for row, color in zip(comparisons, colors, strict=True):
        for number, curve in enumerate(each for each in row.curves if each.measure == kind.name):
            yield row.name, color, number, curve


def draw_curves(figure: Figure, comparisons: Sequence[Comparison], label: str) -> None:
    """Draw a panel per kind of curve: a colour per embedding, dotted and grey what chance gives.

    Parameters
    ----------
    figure : matplotlib Figure
        Drawn into.
    comparisons : sequence of Comparison
    label : str
        What was probed.
    """
    kinds = _kinds(comparisons)
    n_rows = -(-len(kinds) // _COLUMNS)
    figure.set_size_inches(13, 4 * max(n_rows, 1))
    panels = np.ravel(figure.subplots(n_rows, _COLUMNS)) if kinds else []
    for kind, axis in zip(kinds, panels, strict=False):
        for name, color, number, curve in _drawn(comparisons, kind):
            style, marker = _STYLES[number % len(_STYLES)][0], _MARKERS[number % len(_MARKERS)][0]
            words = f"{name}: {curve.part}" if curve.part else name
            axis.plot(curve.x, curve.value, style, color=color, marker=marker, markersize=4, label=words)
            axis.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.15, linewidth=0)
            axis.plot(curve.x, curve.chance, ":", color=color if curve.part else _INK, linewidth=1)
        if kind.name == "annotation_efficiency":
            axis.set_xscale("log")
            axis.set_xticks(N_LINEAGES, [str(each) for each in N_LINEAGES])
            axis.minorticks_off()
        axis.set_xlabel(kind.x)
        axis.set_title(kind.title.format(label=label).replace("<br>", "; "), fontsize="medium", loc="left")
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="x-small")
    for axis in panels[len(kinds) :]:
        axis.set_axis_off()


def curves_figure(comparisons: Sequence[Comparison], label: str) -> Any | None:
    """Make the same panels as a figure of plotly, for a page; None where there is no curve."""
    kinds = _kinds(comparisons)
    if not kinds:
        return None
    n_rows = -(-len(kinds) // _COLUMNS)
    titles = [kind.title.format(label=escape(label, quote=False)) for kind in kinds]
    subplots = require("plotly.subplots", extra="report", package="viscy-utils")
    figure = subplots.make_subplots(n_rows, _COLUMNS, subplot_titles=titles, vertical_spacing=0.32 / n_rows)
    named: set[str] = set()
    for number, kind in enumerate(kinds):
        place = {"row": number // _COLUMNS + 1, "col": number % _COLUMNS + 1}
        for name, color, order, curve in _drawn(comparisons, kind):
            for trace in _traces(escape(name, quote=False), css_color(color), order, curve):
                figure.add_scatter(**trace | {"showlegend": trace["showlegend"] and name not in named}, **place)
            named.add(name)
        ticks = {"type": "log", "tickvals": N_LINEAGES} if kind.name == "annotation_efficiency" else {}
        figure.update_xaxes(title={"text": kind.x, "standoff": 4, "font": {"size": 13}}, **ticks, **place)
    figure.update_xaxes(gridcolor="#eef0f4", zeroline=False, linecolor="#d7dbe2", mirror=True)
    figure.update_yaxes(gridcolor="#eef0f4", zeroline=False, linecolor="#d7dbe2", mirror=True)
    figure.update_annotations(font_size=13)
    figure.update_layout(
        template="none",
        margin={"l": 50, "r": 20, "t": 50, "b": 50},
        legend={"x": 1.02, "y": 1, "xanchor": "left"},
        height=330 * n_rows,
        font={"family": 'system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif'},
    )
    return figure


def _traces(name: str, color: str, order: int, curve: Curve) -> Iterator[dict[str, Any]]:
    words = f"{name}<br>{escape(curve.part, quote=False)}" if curve.part else name
    common = {"x": curve.x, "legendgroup": name, "name": name}
    bars = None
    if np.isfinite(curve.low).any():
        value = np.asarray(curve.value)
        bars = {"array": np.asarray(curve.high) - value, "arrayminus": value - np.asarray(curve.low), "thickness": 1}
    yield common | {
        "y": curve.value,
        "error_y": bars,
        "mode": "lines+markers",
        "line": {"color": color, "dash": _STYLES[order % len(_STYLES)][1]},
        "marker": {"color": color, "symbol": _MARKERS[order % len(_MARKERS)][1]},
        "hovertemplate": f"{words}<br>%{{x}}: %{{y:.3f}}<extra></extra>",
        "showlegend": True,
    }
    line = {"color": color if curve.part else _INK, "dash": "dot", "width": 1}
    hover = f"{words}<br>chance %{{y:.3f}}<extra></extra>"
    yield common | {"y": curve.chance, "mode": "lines", "line": line, "hovertemplate": hover, "showlegend": False}
