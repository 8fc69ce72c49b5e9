"""The report on embeddings side by side: a table, a picture, and the numbers in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from dynaclr.config import load_data_module
from dynaclr.evaluation.figure import draw_curves_picture, draw_mixing_picture, draw_report
from dynaclr.evaluation.pixels import pixel_pca
from dynaclr.pair_page import PairImages
from viscy_data.checks import near_matches
from viscy_data.errors import InputError
from viscy_data.files import refuse_existing, replacing
from viscy_utils.embeddings.row_filter import matching_rows
from viscy_utils.evaluation.atlas import make_atlas
from viscy_utils.evaluation.comparison import (
    Comparison,
    compare,
    comparison_notes,
    comparison_records,
    comparison_table,
    main_table,
    measures_table,
)
from viscy_utils.evaluation.corrected_folds import corrected
from viscy_utils.evaluation.correction import Method
from viscy_utils.evaluation.curves import curve_records
from viscy_utils.evaluation.embedded import Embedded, read_embedded
from viscy_utils.evaluation.labels import add_labels, only_labelled, read_label_table
from viscy_utils.evaluation.measures import MEASURES
from viscy_utils.evaluation.origins import origin_notes
from viscy_utils.evaluation.report_page import most_cells, report_page
from viscy_utils.evaluation.verdict import verdict
from viscy_utils.reports.files import json_text, write_text
from viscy_utils.reports.tables import ReportTable, csv_text

__all__ = ["Comparison", "compare", "comparison_table", "evaluate_embeddings"]

_PAGE = "report.html"
_FILES = ("report.json", "report.csv", "report.md", "report.png", "mixing.png", "curves.csv", "curves.png")
_N_LAID_OUT = 1500  # cells; t-SNE of more takes long


def evaluate_embeddings(
    embeddings: Mapping[str, str | Path],
    label: str,
    output_dir: Path,
    *,
    pixel_configs: Sequence[Path] = (),
    labels: Sequence[Path] = (),
    test_experiments: Sequence[str] = (),
    corrections: Sequence[Method] = (),
    controls: str | None = None,
    pairs: PairImages | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> list[Comparison]:
    """Read embeddings, compute their metrics, print the main ones, write the report.

    ``report.html`` is the report as one page, for which the extra ``eval`` is needed; without it there are the others:
    ``report.{json,csv,md,png}``, ``mixing.png`` and ``curves.{csv,png}``. Cells without a label are left out; how many
    and why is in the notes below the table and in ``left_out`` of the JSON.

    Parameters
    ----------
    embeddings : mapping of str to path
        Stores to compare, by name.
    label : str
        Column to probe, of the embeddings or of ``labels``.
    output_dir : Path
        Made when missing.
    pixel_configs : sequence of Path, optional
        Configs of the prediction; PCA of the pixels of its data is added to the comparison.
    labels : sequence of Path, optional
        CSVs with ``experiment, fov_name, track_id, t`` and the label.
    test_experiments : sequence of str, optional
        As in :func:`compare`.
    corrections : sequence of {"center", "standardize", "tvn", "lot"}
        Compare with the embeddings corrected by control cells, too, anew on the training cells of every probe.
    controls : str, optional
        Condition on the columns that names control cells; corrections need it.
    pairs : PairImages, optional
        Anchors and positives to show below the embeddings.
    overwrite : bool, default False
        Replace an existing report.
    seed : int, default 0
        Of every draw.

    Raises
    ------
    InputError
        If an input is missing or does not fit.
    FileExistsError
        If there is a report and ``overwrite`` is not set.
    """
    targets = {name: output_dir / name for name in (_PAGE, *_FILES)}
    for path in targets.values():
        refuse_existing(path, overwrite, remedy="choose another folder, or replace it with --overwrite")
    embedded = _read(embeddings, label, pixel_configs, labels, test_experiments, seed)
    embedded += _corrected(embedded, corrections, controls)
    comparisons = compare(embedded, label, test_experiments=test_experiments, seed=seed)
    tables = [comparison_table(comparisons, label), measures_table(comparisons, label)]
    notes = list(comparison_notes(comparisons))
    found = [line.text for line in verdict(comparisons, label, test_experiments)]
    console = Console()
    console.print(main_table(comparisons, label).terminal())
    n_further = sum(not measure.is_main for measure in MEASURES)
    console.print(
        f"{n_further} further measures: {targets['report.md']}", markup=False, highlight=False, soft_wrap=True
    )
    for line in (*found, *notes):
        console.print(line, markup=False, highlight=False)
    write_text(targets["report.json"], json_text(comparisons))
    write_text(targets["report.csv"], csv_text(comparison_records(comparisons)))
    write_text(targets["curves.csv"], csv_text(list(curve_records({row.name: row.curves for row in comparisons}))))
    write_text(targets["report.md"], _page(found, tables, notes))
    drawn = _draw(embedded, comparisons, label, targets, pairs, test_experiments, seed)
    if not drawn:
        console.print("No report.html, which needs plotly: pip install 'dynaclr[eval]'", markup=False, soft_wrap=True)
    wrote = [name for name in targets if drawn or name != _PAGE]
    console.print(f"wrote {output_dir}: {', '.join(wrote)}", markup=False, highlight=False, soft_wrap=True)
    return comparisons


def _draw(
    embedded: Sequence[Embedded],
    comparisons: Sequence[Comparison],
    label: str,
    targets: Mapping[str, Path],
    pairs: PairImages | None,
    held_out: Sequence[str],
    seed: int,
) -> bool:
    """Write the pictures and, where it can be made, the page, which is the same points; returns whether it can."""
    atlas = make_atlas(embedded, most_cells(embedded), _N_LAID_OUT // 2, seed)
    laid_out = track(enumerate(embedded), "Layout", total=len(embedded))
    layouts = [atlas.layout(number, each, _N_LAID_OUT, seed) for number, each in laid_out]
    _save(draw_report(embedded, comparisons, label, layouts, pairs, held_out=held_out), targets["report.png"])
    _save(draw_mixing_picture(comparisons, label), targets["mixing.png"])
    _save(draw_curves_picture(comparisons, label), targets["curves.png"])
    if not (find_spec("plotly") and find_spec("PIL")):
        targets[_PAGE].unlink(missing_ok=True)  # that of an earlier report is not of these numbers
        return False
    write_text(targets[_PAGE], report_page(embedded, comparisons, label, atlas, layouts, held_out=held_out, seed=seed))
    return True


def _save(picture: Figure, path: Path) -> None:
    with replacing(path, overwrite=True) as temporary:
        picture.savefig(temporary, dpi=120, format="png")


def _read(
    embeddings: Mapping[str, str | Path],
    label: str,
    pixel_configs: Sequence[Path],
    labels: Sequence[Path],
    test_experiments: Sequence[str],
    seed: int,
) -> list[Embedded]:
    """Read all cells that have a label, and find what does not fit before anything is computed."""
    embedded = [read_embedded(name, path) for name, path in embeddings.items()]
    notes = origin_notes(embedded)
    embedded = [replace(each, notes=(*each.notes, *notes)) for each in embedded]
    table = pd.concat([read_label_table(path) for path in labels], ignore_index=True) if labels else None
    source = ", ".join(map(str, labels))

    def labelled(each: Embedded) -> Embedded:
        if table is not None:
            each = add_labels(each, table, label, source=source)
        _check(each, label, test_experiments)
        return only_labelled(each, label)

    embedded = [labelled(each) for each in embedded]
    if pixel_configs:
        data = load_data_module(pixel_configs)
        embedded += [labelled(pixel_pca(data, seed=seed, raw=raw)) for raw in (True, False)]
    return embedded


def _corrected(embedded: Sequence[Embedded], methods: Sequence[Method], controls: str | None) -> list[Embedded]:
    if bool(methods) != bool(controls):
        raise InputError("dynaclr evaluate", found="one of --correct and --controls", expected="both, or none")
    masks = [matching_rows(each.obs, controls, "--controls") for each in embedded] if methods else []
    return [corrected(each, mask, method) for method in methods for each, mask in zip(embedded, masks, strict=True)]


def _check(embedded: Embedded, label: str, test_experiments: Sequence[str]) -> None:
    """Find a label or an experiment that is not there."""
    if label not in embedded.obs:
        raise InputError(
            embedded.name,
            field="label",
            found=label,
            expected=near_matches(label, embedded.obs.columns),
            fix="name a column of obs, or give a table with --labels",
        )
    known = sorted(set(embedded.obs["experiment"]))
    unknown = [name for name in test_experiments if name not in known]
    if not unknown and set(known) <= set(test_experiments):
        raise InputError(
            embedded.name,
            field="--test-experiment",
            found=f"all experiments: {', '.join(known)}",
            expected="at least one left to train the probe on",
            fix="leave one out, or all of them: the probe is then cross-validated over FOVs",
        )
    if unknown:
        raise InputError(
            embedded.name,
            field="test_experiments",
            found=", ".join(unknown),
            expected=f"of {', '.join(known)}",
        )


def _page(found: Sequence[str], tables: Sequence[ReportTable], notes: Sequence[str]) -> str:
    first, last = ("\n".join(f"- {line}" for line in lines) for lines in (found, notes))
    return "\n".join([first, "", *(table.markdown() for table in tables), last]) + "\n"
