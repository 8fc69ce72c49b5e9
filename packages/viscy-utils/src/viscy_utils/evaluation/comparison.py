"""Embeddings side by side: probe, mixing and smoothness of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from viscy_utils.evaluation.curves import Curve, all_curves
from viscy_utils.evaluation.embedded import Embedded, LeftOut
from viscy_utils.evaluation.measures import MEASURES, Judged, all_measures
from viscy_utils.evaluation.origins import origin_of
from viscy_utils.evaluation.scores import Score
from viscy_utils.evaluation.smoothness import temporal_smoothness
from viscy_utils.reports.tables import ReportTable

__all__ = [
    "Comparison",
    "best_of",
    "compare",
    "comparison_notes",
    "comparison_records",
    "comparison_table",
    "main_table",
    "measures_table",
]

_METRICS = ("probe", "separability", "smoothness")


@dataclass(frozen=True)
class Comparison:
    """The metrics of one embedding.

    Attributes
    ----------
    name : str
        Name of the embedding.
    probe : Score
        Balanced accuracy of the label on held-out cells, higher is better.
    separability : Score
        Balanced accuracy of the experiment, lower is better.
    smoothness : float
        Distance of adjacent frames over distance of random pairs, lower is smoother.
    n_cells : int
        How many rows the metrics are from.
    left_out : tuple of LeftOut
        Cells that were not judged, and why.
    notes : tuple of str
        What else was noticed.
    origin : mapping
        Checkpoint, date, versions and data, as far as the store says (`viscy_utils.evaluation.origins.origin_of`).
    measures : mapping of str to Score
        Further measures by name (`viscy_utils.evaluation.measures.MEASURES`); those that the columns at hand do not
        allow are missing scores that say why.
    curves : tuple of Curve
        Figures by time and by the number of labels (`viscy_utils.evaluation.curves.CURVES`); ``notes`` say which are
        missing.
    """

    name: str
    probe: Score
    separability: Score
    smoothness: float
    n_cells: int
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    measures: Mapping[str, Score] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()


def compare(
    embedded: Sequence[Embedded],
    label: str,
    *,
    test_experiments: Sequence[str] = (),
    max_cells: int = 20_000,
    seed: int = 0,
) -> list[Comparison]:
    """Compute the metrics of several embeddings of the same experiments.

    Parameters
    ----------
    embedded : sequence of Embedded
        The embeddings to compare, of labelled cells (`viscy_utils.evaluation.labels.only_labelled`).
    label : str
        Column of ``obs`` to probe.
    test_experiments : sequence of str, optional
        The probe is trained on the other experiments and scored on these; without it, cross-validated over FOVs.
    max_cells : int, default 20000
        Probe and mixing use at most so many cells, drawn at random.
    seed : int, default 0
        Of the draws.
    """
    return [_metrics(each, label, test_experiments, max_cells, seed) for each in embedded]


def _metrics(all_cells: Embedded, label: str, test_experiments: Sequence[str], max_cells: int, seed: int) -> Comparison:
    cells = all_cells.sample(max_cells, seed)
    judged = Judged(all_cells, cells, label, tuple(test_experiments), seed)
    curves, missing = all_curves(judged)
    return Comparison(
        cells.name,
        judged.probe.balanced_accuracy,
        judged.experiment_from_neighbors.balanced_accuracy,
        temporal_smoothness(all_cells.features, all_cells.tracks, all_cells.obs["t"].to_numpy(), seed=seed),
        len(cells.features),
        cells.left_out,
        (*cells.notes, *missing),
        origin_of(cells),
        all_measures(judged),
        curves,
    )


def best_of(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """Name the best embedding of each metric.

    Smoothness is only worth something in an embedding that carries the label: one whose probe is at chance is never
    the smoothest. With a single embedding there is no best.

    Returns
    -------
    dict of str to str
        Among ``probe``, ``separability``, ``smoothness``.
    """
    if len(comparisons) < 2:
        return {}
    scored = [row for row in comparisons if not np.isnan(row.probe.value)]
    told = [row for row in comparisons if not np.isnan(row.separability.value)]
    smooth = [row for row in scored if row.probe.is_informative and not np.isnan(row.smoothness)]
    found = {
        "probe": max(scored, key=lambda row: row.probe.value, default=None),
        "separability": min(told, key=lambda row: row.separability.value, default=None),
        "smoothness": min(smooth, key=lambda row: row.smoothness, default=None),
    }
    return {metric: row.name for metric, row in found.items() if row is not None}


def comparison_table(comparisons: Sequence[Comparison], label: str) -> ReportTable:
    """Lay the metrics out, with chance level and interval beside each."""
    rows = []
    for row in comparisons:
        ends = _ends(row, comparisons)
        probe, separability = _cell(row.probe, ends["probe"]), _cell(row.separability, ends["separability"])
        rows.append((row.name, probe, separability, _smoothness(row, ends["smoothness"])))
    heads = (
        "embedding",
        f"probe of {label}\nbalanced accuracy, higher is better",
        "experiment told from neighbours\nbalanced accuracy, lower is better",
        "smoothness\nadjacent / random, lower is smoother",
    )
    return ReportTable("Embeddings side by side (95 % intervals over lineages)", heads, rows)


def measures_table(comparisons: Sequence[Comparison], label: str) -> ReportTable:
    """Lay out the further measures, one per row."""
    rows = []
    for measure in MEASURES:
        cells = [_cell(row.measures[measure.name], "") for row in comparisons]
        rows.append((f"{measure.title.format(label=label)}\n{measure.better} is better", *cells))
    return ReportTable("Further measures", ("measure", *(row.name for row in comparisons)), rows)


def main_table(comparisons: Sequence[Comparison], label: str) -> ReportTable:
    """Lay the main scores out with a line per score and embedding, which fits a terminal of 80 columns."""
    ends = [_ends(row, comparisons) for row in comparisons]
    rows: list[tuple[str, str]] = []

    def add(title: str, texts: Iterable[str], metric: str = "") -> None:
        rows.append((title, ""))
        names = (f"  {row.name}{end.get(metric, '')}" for row, end in zip(comparisons, ends, strict=True))
        rows.extend(zip(names, texts, strict=True))

    balanced = "balanced accuracy"
    add(f"probe of {label}, {balanced}; higher is better", (str(row.probe) for row in comparisons), "probe")
    told = (str(row.separability) for row in comparisons)
    add(f"experiment told from neighbours, {balanced}; lower is better", told, "separability")
    for measure in MEASURES:
        if measure.is_main:
            title = measure.title.format(label=label).replace("\n", ", ")
            add(f"{title}; {measure.better} is better", (str(row.measures[measure.name]) for row in comparisons))
    add("smoothness, adjacent / random; lower is smoother", (_smoothness(row) for row in comparisons), "smoothness")
    return ReportTable("Main scores (95 % intervals over lineages)", ("", ""), rows)


def _ends(row: Comparison, comparisons: Sequence[Comparison]) -> dict[str, str]:
    """Mark the metrics of which an embedding is the best one."""
    best = best_of(comparisons)
    return {metric: " (best)" if best.get(metric) == row.name else "" for metric in _METRICS}


def _smoothness(row: Comparison, end: str = "") -> str:
    text = "not computed" if np.isnan(row.smoothness) else f"{row.smoothness:.3f}{end}"
    at_chance = not row.probe.is_informative and not np.isnan(row.probe.value)
    return f"{text}\nthe probe is at chance" if at_chance else text


def _cell(score: Score, end: str) -> str:
    note = f"\n{score.note}" if score.note and not np.isnan(score.value) else ""
    return f"{score}{end}{note}"


def comparison_notes(comparisons: Sequence[Comparison], *, left_out: bool = True) -> Iterator[str]:
    """Yield what was noticed about embeddings; once what holds for all.

    Parameters
    ----------
    comparisons : sequence of Comparison
    left_out : bool, default True
        Say which cells were left out, too.
    """
    notes = {row.name: [*(map(str, row.left_out) if left_out else ()), *row.notes] for row in comparisons}
    shared = [note for note in next(iter(notes.values()), []) if all(note in own for own in notes.values())]
    yield from shared
    for name, own in notes.items():
        yield from (f"{name}: {note}" for note in own if note not in shared)


def comparison_records(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return one flat record per embedding, for CSV."""
    records = []
    for row in comparisons:
        record: dict[str, Any] = {"name": row.name, "n_cells": row.n_cells}
        for metric, score in {"probe": row.probe, "separability": row.separability, **row.measures}.items():
            record |= {metric: score.value, f"{metric}_low": score.low, f"{metric}_high": score.high}
            record |= {f"{metric}_chance": score.chance}
        n_left_out = sum(each.n_cells for each in row.left_out)
        records.append(record | {"smoothness": row.smoothness, "n_left_out": n_left_out})
    return records
