"""The table of a comparison: on the terminal, as CSV, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dynaclr.comparison.runs import VariantRun
from dynaclr.comparison.verdict import Criterion, judge, worst_level
from dynaclr.engine.vae.latent import COLLAPSED_NATS
from dynaclr.imbalance import ClassMetrics
from viscy_utils.reports.files import json_text, write_text
from viscy_utils.reports.numbers import number
from viscy_utils.reports.tables import Marked, ReportTable, csv_text

__all__ = ["Row", "criteria_table", "make_rows", "verdict_table", "write_reports"]


@dataclass(frozen=True)
class Row:
    """A variant in the table; metrics are None where a run has none.

    Parameters
    ----------
    variant : str
    epochs : int
        Completed.
    train_loss, val_loss : float, optional
        Of the last epoch. Different losses have different scales.
    accuracy, balanced_accuracy : float, optional
    class_accuracies : list of float, optional
    majority_share, true_majority_share : float, optional
        Share of predictions that the class predicted most gets, and of samples that are of the commonest class.
    latent_kl : list of float, optional
        Per dimension.
    active_dims : int, optional
        Dimensions with at least 0.05 nats.
    verdict : str
        "crashed", or the worst level of the criteria with their names.
    criteria : list of Criterion
    error : str, optional
    """

    variant: str
    epochs: int
    train_loss: float | None
    val_loss: float | None
    accuracy: float | None
    balanced_accuracy: float | None
    class_accuracies: list[float] | None
    majority_share: float | None
    true_majority_share: float | None
    latent_kl: list[float] | None
    active_dims: int | None
    verdict: str
    criteria: list[Criterion]
    error: str | None


def make_rows(runs: Sequence[VariantRun]) -> list[Row]:
    """Judge the runs; a criterion ``data order`` says whether their batches were those of the first run."""
    return [_row(run, _data_order(run, runs[0])) for run in runs]


def _row(run: VariantRun, data_order: Criterion) -> Row:
    last = run.records[-1] if run.records else None
    metrics = ClassMetrics(torch.tensor(last.confusion)) if last and last.confusion else None
    kl = last.latent_kl if last else None
    criteria = [*judge(run.records), data_order]
    return Row(
        variant=run.name,
        epochs=len(run.records),
        train_loss=last and last.train_loss,
        val_loss=last and last.val_loss,
        accuracy=metrics and metrics.accuracy,
        balanced_accuracy=metrics and metrics.balanced_accuracy,
        class_accuracies=metrics and metrics.class_accuracies,
        majority_share=metrics and metrics.majority_share,
        true_majority_share=metrics and max(metrics.true_shares),
        latent_kl=kl,
        active_dims=None if kl is None else sum(value >= COLLAPSED_NATS for value in kl),
        verdict="crashed" if run.error else _verdict(criteria),
        criteria=criteria,
        error=run.error,
    )


def _data_order(run: VariantRun, first: VariantRun) -> Criterion:
    pairs = list(zip(run.records, first.records, strict=False))
    if not pairs:
        return Criterion("data order", "unknown", "not known")
    same = all(own.data_order == other.data_order for own, other in pairs)
    return Criterion("data order", "good" if same else "watch", "the same batches" if same else "other batches")


def _verdict(criteria: Sequence[Criterion]) -> str:
    worst = worst_level(criteria)
    if worst not in ("bad", "watch"):
        return worst
    return f"{worst}: {', '.join(each.name for each in criteria if each.level == worst)}"


def verdict_table(rows: Sequence[Row]) -> ReportTable:
    """Lay the metrics and the verdicts out, for the terminal."""
    chosen = ("variant", "accuracy", "per class", "majority share\npredicted / true", "latent dims\nin use")
    body = []
    for row in rows:
        level = "bad" if row.error else worst_level(row.criteria)
        words = row.verdict if row.error is None else f"crashed after {row.epochs} epochs\n{row.error}"
        cells = _cells(row)
        body.append([*(cells[head] for head in chosen), Marked(words, level)])
    return ReportTable(
        "Losses side by side (last epoch, validation data where there are any)", [*chosen, "verdict"], body
    )


def criteria_table(rows: Sequence[Row]) -> ReportTable:
    """Lay the verdicts out criterion by criterion, one column per variant."""
    body = []
    for same in zip(*(row.criteria for row in rows), strict=True):
        body.append([same[0].name, *(Marked(f"{each.level}: {each.found}", each.level) for each in same)])
    return ReportTable("Verdict per criterion", ["criterion", *(row.variant for row in rows)], body)


def _cells(row: Row) -> dict[str, str]:
    """Write the metrics of a row; the keys are the heads of the columns."""
    shares = f"{number(row.majority_share)} / {number(row.true_majority_share)}"
    return {
        "variant": row.variant,
        "accuracy": number(row.accuracy),
        "per class": "-" if row.class_accuracies is None else " ".join(map(number, row.class_accuracies)),
        "majority share\npredicted / true": "-" if row.majority_share is None else shares,
        "latent dims\nin use": "-" if row.latent_kl is None else f"{row.active_dims} of {len(row.latent_kl)}",
        "train loss": number(row.train_loss),
        "val loss": number(row.val_loss),
    }


def write_reports(rows: Sequence[Row], folder: Path, settings: dict[str, Any]) -> None:
    """Write ``report.json``, ``table.csv`` and ``table.md``, each complete or not at all.

    Parameters
    ----------
    rows : sequence of Row
    folder : Path
    settings : dict
        What was compared, for ``report.json``.
    """
    write_text(folder / "report.json", json_text(settings | {"variants": [asdict(row) for row in rows]}))
    n_classes = max((len(row.class_accuracies or []) for row in rows), default=0)
    write_text(folder / "table.csv", csv_text([_record(row, n_classes) for row in rows]))
    write_text(folder / "table.md", _page(rows))


def _record(row: Row, n_classes: int) -> dict[str, Any]:
    """Return a row of the CSV table."""
    simple = ("variant", "epochs", "train_loss", "val_loss", "accuracy", "balanced_accuracy", "majority_share")
    simple += ("true_majority_share", "active_dims", "verdict", "error")
    classes = [*(row.class_accuracies or []), *[None] * n_classes][:n_classes]
    return (
        {key: getattr(row, key) for key in simple}
        | {f"accuracy_class_{k}": value for k, value in enumerate(classes)}
        | {each.name: each.level for each in row.criteria}
    )


def _page(rows: Sequence[Row]) -> str:
    """Lay everything out for reading: a table, and below it the judgements of each variant."""
    heads = [*_cells(rows[0]), "verdict"] if rows else []
    lines = [ReportTable("", heads, [[*_cells(row).values(), row.verdict] for row in rows]).markdown()]
    for row in rows:
        lines += [f"**{row.variant}**", ""]
        lines += [f"- {each.name}: {each.level}, {each.found}" for each in row.criteria]
        lines += [*([f"- crashed: {row.error}"] if row.error else []), ""]
    return "\n".join(lines)
