"""The page: sections under a headline, with styles and scripts in it, and a rule to ask nobody for anything."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple

from viscy_data.optional import require
from viscy_utils.reports.tables import Marked

__all__ = ["Section", "figure_html", "page_html", "verdict_html"]

# Plotly draws points on the GPU by functions that it makes while it runs, hence 'unsafe-eval'.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'none'; form-action 'none'; base-uri 'none'"
)


class Section(NamedTuple):
    """A part of the page.

    Parameters
    ----------
    name : str
        Of its place in the page: letters and hyphens.
    title : str
    body : str
        HTML, in which all texts are escaped.
    """

    name: str
    title: str
    body: str


def page_html(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Write a page that is complete in itself.

    Parameters
    ----------
    title, subtitle : str
        Texts.
    sections : sequence of Section
        In order; a line of links leads to them.

    Returns
    -------
    str
        HTML with styles and plotly in it; the same for the same arguments and the same version of plotly.
    """
    style = files("viscy_utils.reports.html").joinpath("assets", "page.css").read_text(encoding="utf8")
    plotly = require("plotly.offline", extra="report", package="viscy-utils").get_plotlyjs()
    links = "".join(f'<a href="#{each.name}">{escape(each.title)}</a>' for each in sections)
    parts = "".join(
        f'<section id="{each.name}"><h2>{escape(each.title)}</h2>\n{each.body}\n</section>\n' for each in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n<script>{plotly}</script></head>\n"
        f'<body><main><h1>{escape(title)}</h1><p class="sub">{escape(subtitle)}</p><nav>{links}</nav>\n'
        f"{parts}</main></body></html>\n"
    )


def figure_html(figure: Any, name: str) -> str:
    """Write a figure of plotly for a page that has plotly in it already.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure
        Its texts are markup of plotly: escape names from data.
    name : str
        Of its place in the page.
    """
    config = {"displaylogo": False, "displayModeBar": False, "responsive": True}
    body = figure.to_html(config=config, include_plotlyjs=False, full_html=False, div_id=name)
    return f'<div class="figure" style="height: {figure.layout.height or 430}px">{body}</div>'


def verdict_html(lines: Sequence[Marked]) -> str:
    """Write judgements as a list."""
    items = "".join(f'<li class="{each.level}">{escape(each.text)}</li>' for each in lines)
    return f'<ul class="verdict">{items}</ul>'
