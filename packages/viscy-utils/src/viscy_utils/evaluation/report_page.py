"""The report of embeddings as one page: verdict, map of cells, biology against mixing, tables, origin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

import numpy as np

from viscy_data.optional import from_extra
from viscy_utils.evaluation.atlas import Atlas, principal_plane
from viscy_utils.evaluation.cell_images import CellImages, read_cell_images
from viscy_utils.evaluation.comparison import Comparison, comparison_notes, comparison_table, measures_table
from viscy_utils.evaluation.curves_picture import curves_figure
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.embedding_pictures import Layout, time_axis
from viscy_utils.evaluation.mixing_picture import mixing_figure
from viscy_utils.evaluation.report_tables import (
    cells_table,
    displacement_table,
    left_out_table,
    origin_tables,
    versions_table,
)
from viscy_utils.evaluation.verdict import verdict
from viscy_utils.reports.html.cell_map import CellMap, MapView, color_columns
from viscy_utils.reports.html.page import Section, figure_html, page_html, verdict_html
from viscy_utils.reports.html.thumbnails import make_sheets

with from_extra("eval", package="viscy-utils"):
    import pandas as pd

__all__ = ["most_cells", "report_page"]

_MOST_CELLS, _MOST_POINTS = 100_000, 800_000  # of a map, and of all maps together
_MOST_IMAGES, _IMAGE_BYTES = 4096, 8_000_000
_CURVES = (
    "<p>A colour per embedding; dotted is what chance gives, bars are the deviation of draws. Lines of one colour "
    "in a panel are of different experiments: point at one.</p>"
)
_METHODS = {"umap": "UMAP", "phate": "PHATE", "pacmap": "PaCMAP", "tsne": "t-SNE of the store"}


def most_cells(embedded: Sequence[Embedded]) -> int:
    """Return how many cells the maps of embeddings may show: 100,000, fewer for more than eight maps of all cells."""
    n_maps = sum(1 + len(each.layouts) for each in embedded)
    return min(_MOST_CELLS, _MOST_POINTS // n_maps)


def report_page(
    embedded: Sequence[Embedded],
    comparisons: Sequence[Comparison],
    label: str,
    atlas: Atlas,
    layouts: Sequence[Layout],
    *,
    held_out: Sequence[str] = (),
    seed: int = 0,
) -> str:
    """Write the page.

    Parameters
    ----------
    embedded : sequence of Embedded
        The embeddings, all with the column ``label``.
    comparisons : sequence of Comparison
        What was found for each.
    label : str
    atlas : Atlas
        Of the embeddings.
    layouts : sequence of Layout
        t-SNE of each, of some of the cells.
    held_out : sequence of str
        Experiments that the probe was scored on.
    seed : int, default 0
        Of every draw.

    Returns
    -------
    str
        HTML, the same for the same arguments.
    """
    images = _images(embedded, atlas)
    cell_map, map_notes = _cell_map(embedded, atlas, layouts, images, label, held_out, seed)
    notes = [*comparison_notes(comparisons, left_out=False), *images.notes, *map_notes]
    displacement = displacement_table(embedded)
    if displacement is None:
        notes.append("displacement over time: no track has two frames")
    tables = [comparison_table(comparisons, label), measures_table(comparisons, label)]
    tables += [] if displacement is None else [displacement]
    left_out = left_out_table(comparisons)
    curves = curves_figure(comparisons, label)
    sections = [
        Section("verdict", "Verdict", verdict_html(verdict(comparisons, label, held_out))),
        Section("map-of-cells", "Map of cells", cell_map.html()),
        Section("biology", "Biology against mixing", figure_html(mixing_figure(comparisons, label), "biology-mixing")),
        Section("scores", "Scores", "".join(table.html() for table in tables)),
        *([] if curves is None else [Section("curves", "Curves", _CURVES + figure_html(curves, "curves-figure"))]),
        Section("cells", "Cells", cells_table(embedded[0], label, held_out).html()),
        Section("left-out", "Left out, and why", (left_out.html() if left_out.rows else "") + _listed(notes)),
        Section("origin", "Origin", "".join(_origin(embedded, comparisons))),
    ]
    experiments = len(set(atlas.cells["experiment"]))
    subtitle = f"{', '.join(each.name for each in embedded)}: {atlas.n_cells:,} cells of {experiments} experiments"
    return page_html(f"Embeddings and {label}", subtitle, sections)


def _images(embedded: Sequence[Embedded], atlas: Atlas) -> CellImages:
    """Read images of the first cells of the atlas, by the first embedding that can; rows are cells of the atlas."""
    failed: list[CellImages] = []
    for each, rows in zip(embedded, atlas.rows, strict=True):
        cells = atlas.order[rows[atlas.order] >= 0][:_MOST_IMAGES]
        found = read_cell_images(each, rows[cells])
        if len(found.rows):
            cell_of = dict(zip(rows[cells].tolist(), cells.tolist(), strict=True))
            mine = np.array([cell_of[row] for row in found.rows.tolist()])
            rank = np.empty(len(atlas.order), np.int64)
            rank[atlas.order] = np.arange(len(atlas.order))
            first = np.argsort(rank[mine])
            return CellImages(mine[first], found.pixels[first], found.channels, found.notes)
        failed.append(found)
    return failed[0]


def _cell_map(
    embedded: Sequence[Embedded],
    atlas: Atlas,
    layouts: Sequence[Layout],
    images: CellImages,
    label: str,
    held_out: Sequence[str],
    seed: int,
) -> tuple[CellMap, list[str]]:
    as_text = (lambda value: f"{value:g}") if pd.api.types.is_float_dtype(atlas.cells[label]) else str
    cells = atlas.cells.assign(**{label: atlas.cells[label].map(as_text, na_action="ignore")})
    colors, notes = color_columns(cells, (label, "experiment", "hours_post_infection", "condition"))
    sheets = make_sheets(images.pixels, images.rows, images.channels, _IMAGE_BYTES)
    if len(cells) < atlas.n_cells:
        notes.append(f"the maps show {len(cells):,} of {atlas.n_cells:,} cells, drawn at random")
    missing = f"no image of this cell is in the page: {len(sheets.cells):,} of {len(cells):,} cells have one"
    if not len(sheets.cells):
        missing = images.notes[0] if images.notes else "no image"
    elif len(sheets.cells) < len(cells):
        notes.append(f"images of cells: {len(sheets.cells):,} of {len(cells):,} have one, to keep the page small")
    time = time_axis(cells)
    titles = {"t": "frame"} | ({} if time is None else {"hours_post_infection": time[0]})
    views = list(_views(embedded, atlas, layouts, seed))
    return CellMap(cells, views, colors, held_out, sheets, missing, titles), notes


def _views(embedded: Sequence[Embedded], atlas: Atlas, layouts: Sequence[Layout], seed: int) -> Iterator[MapView]:
    for number, (each, layout) in enumerate(zip(embedded, layouts, strict=True)):
        every = np.arange(len(each.obs))
        made = {_title(method): Layout(every, points) for method, points in each.layouts.items()}
        made["t-SNE"] = layout
        made["principal components"] = Layout(every, principal_plane([each.features]))
        for method, own in made.items():
            points = atlas.points(number, own)
            n_cells = int(np.isfinite(points[:, 0]).sum())
            axes = ("PC 1", "PC 2") if method == "principal components" else (f"{method} 1", f"{method} 2")
            words = f"Map of {each.name} by {method}: {n_cells:,} of {len(each.obs):,} cells."
            yield MapView(f"{each.name}: {method}", points, axes, words)


def _title(method: str) -> str:
    """Return what a stored layout is called: ``umap_combined`` is that of several stores together."""
    base, _, end = method.partition("_")
    return f"{_METHODS[base]} {end}".strip()


def _listed(notes: Sequence[str]) -> str:
    if not notes:
        return "<p>Nothing was left out.</p>"
    return f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"


def _origin(embedded: Sequence[Embedded], comparisons: Sequence[Comparison]) -> Iterator[str]:
    tables = [table.html() for table in origin_tables(comparisons)]
    yield from tables or ["<p>The embeddings do not say where they come from.</p>"]
    versions = versions_table(comparisons)
    if versions is not None:
        yield f"<details><summary>Versions of what predicted</summary>{versions.html()}</details>"
    for each in embedded:
        stored = each.origin.get("origin")
        for key, words in (("command", "Command"), ("config", "Config")):
            text = stored.get(key) if isinstance(stored, Mapping) else None
            if text:
                title = f"{words} of the prediction of {each.name}"
                yield f"<details><summary>{escape(title)}</summary><pre>{escape(str(text))}</pre></details>"
