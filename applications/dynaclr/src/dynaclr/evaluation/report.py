"""The report on embeddings side by side: a table, a picture, and the numbers in files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.console import Console

from dynaclr.config import load_data_module
from dynaclr.evaluation.figure import draw_report
from dynaclr.evaluation.pixels import pixel_pca
from dynaclr.pair_page import PairImages
from viscy_data.checks import near_matches
from viscy_data.errors import InputError
from viscy_data.files import refuse_existing, replacing
from viscy_utils.evaluation.comparison import (
    Comparison,
    compare,
    comparison_records,
    comparison_table,
    measures_table,
)
from viscy_utils.evaluation.embedded import Embedded, read_embedded
from viscy_utils.evaluation.labels import add_labels, only_labelled, read_label_table
from viscy_utils.evaluation.origins import origin_notes
from viscy_utils.reports.files import json_text, write_text
from viscy_utils.reports.tables import ReportTable, csv_text

__all__ = ["Comparison", "compare", "comparison_table", "evaluate_embeddings"]

_FILES = ("report.json", "report.csv", "report.md", "report.png")


def evaluate_embeddings(
    embeddings: Mapping[str, str | Path],
    label: str,
    output_dir: Path,
    *,
    pixel_configs: Sequence[Path] = (),
    labels: Sequence[Path] = (),
    test_experiments: Sequence[str] = (),
    pairs: PairImages | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> list[Comparison]:
    """Read embeddings, compute their metrics, print the table, write ``report.{json,csv,md,png}``.

    Cells without a label are left out; how many and why is in the notes below the table and in ``left_out``
    of the JSON.

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
    targets = {name: output_dir / name for name in _FILES}
    for path in targets.values():
        refuse_existing(path, overwrite, remedy="choose another folder, or replace it with --overwrite")
    embedded = _read(embeddings, label, pixel_configs, labels, test_experiments, seed)
    comparisons = compare(embedded, label, test_experiments=test_experiments, seed=seed)
    tables = [comparison_table(comparisons, label), measures_table(comparisons, label)]
    notes = list(_notes(comparisons))
    console = Console()
    for table in tables:
        console.print(table.terminal())
    for note in notes:
        console.print(note, markup=False, highlight=False)
    write_text(targets["report.json"], json_text(comparisons))
    write_text(targets["report.csv"], csv_text(comparison_records(comparisons)))
    write_text(targets["report.md"], _page(tables, notes))
    picture = draw_report(embedded, comparisons, label, pairs, held_out=test_experiments, seed=seed)
    with replacing(targets["report.png"], overwrite=True) as temporary:
        picture.savefig(temporary, dpi=120, format="png")
    console.print(f"Wrote {', '.join(_FILES)} to {output_dir}", markup=False, highlight=False, soft_wrap=True)
    return comparisons


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
    if unknown:
        raise InputError(
            embedded.name,
            field="test_experiments",
            found=", ".join(unknown),
            expected=f"of {', '.join(known)}",
        )


def _notes(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Say what was left out of each embedding; once where it is the same for all."""
    notes = {row.name: [*map(str, row.left_out), *row.notes] for row in comparisons}
    shared = [note for note in next(iter(notes.values()), []) if all(note in own for own in notes.values())]
    yield from shared
    for name, own in notes.items():
        yield from (f"{name}: {note}" for note in own if note not in shared)


def _page(tables: Sequence[ReportTable], notes: Sequence[str]) -> str:
    return "\n".join([*(table.markdown() for table in tables), *(f"- {note}" for note in notes)]) + "\n"
