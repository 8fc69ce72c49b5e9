"""The table of a comparison: on the terminal, as CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table

from dynaclr.comparison.runs import VariantRun
from dynaclr.comparison.verdict import Criterion, judge, worst_level
from dynaclr.engine.vae.latent import COLLAPSED_NATS
from dynaclr.imbalance import ClassFigures
from viscy_data.files import replacing

__all__ = ["Row", "criteria_table", "make_rows", "terminal_table", "write_reports"]

_STYLES = {"good": "green", "watch": "yellow", "bad": "bold red", "unknown": "dim"}


@dataclass(frozen=True)
class Row:
    """A variant in the table; figures are None where a run has none.

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
    figures = ClassFigures(torch.tensor(last.confusion)) if last and last.confusion else None
    kl = last.latent_kl if last else None
    criteria = [*judge(run.records), data_order]
    return Row(
        variant=run.name,
        epochs=len(run.records),
        train_loss=last and last.train_loss,
        val_loss=last and last.val_loss,
        accuracy=figures and figures.accuracy,
        balanced_accuracy=figures and figures.balanced_accuracy,
        class_accuracies=figures and figures.class_accuracies,
        majority_share=figures and figures.majority_share,
        true_majority_share=figures and max(figures.true_shares),
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


def terminal_table(rows: Sequence[Row]) -> Table:
    """Lay the figures and the verdicts out for the terminal."""
    table = Table(title="Losses side by side (last epoch, validation data where there are any)")
    for head in (
        "variant",
        "accuracy",
        "per class",
        "majority share\npredicted / true",
        "latent dims\nin use",
        "verdict",
    ):
        table.add_column(head, overflow="fold")
    for row in rows:
        level = "bad" if row.error else worst_level(row.criteria)
        words = row.verdict if row.error is None else f"crashed after {row.epochs} epochs\n{row.error}"
        cells = _cells(row)
        table.add_row(
            *(cells[key] for key in ("variant", "accuracy", "per class", "majority", "dims")),
            f"[{_STYLES[level]}]{escape(words)}[/]",
        )
    return table


def criteria_table(rows: Sequence[Row]) -> Table:
    """Lay the verdicts out criterion by criterion, one column per variant."""
    table = Table(title="Verdict per criterion")
    table.add_column("criterion")
    for row in rows:
        table.add_column(row.variant, overflow="fold")
    for same in zip(*(row.criteria for row in rows), strict=True):
        cells = (f"[{_STYLES[each.level]}]{each.level}[/]: {escape(each.found)}" for each in same)
        table.add_row(same[0].name, *cells)
    return table


def _cells(row: Row) -> dict[str, str]:
    shares = f"{_number(row.majority_share)} / {_number(row.true_majority_share)}"
    return {
        "variant": row.variant,
        "accuracy": _number(row.accuracy),
        "per class": "-" if row.class_accuracies is None else " ".join(map(_number, row.class_accuracies)),
        "majority": "-" if row.majority_share is None else shares,
        "dims": "-" if row.latent_kl is None else f"{row.active_dims} of {len(row.latent_kl)}",
        "train loss": _number(row.train_loss),
        "val loss": _number(row.val_loss),
    }


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def write_reports(rows: Sequence[Row], folder: Path, settings: dict[str, Any]) -> None:
    """Write ``report.json``, ``table.csv`` and ``table.md``, each complete or not at all.

    Parameters
    ----------
    rows : sequence of Row
    folder : Path
    settings : dict
        What was compared, for ``report.json``.
    """
    content = settings | {"variants": [asdict(row) for row in rows]}
    _replace(folder / "report.json", json.dumps(_plain(content), indent=2) + "\n")
    _replace(folder / "table.csv", _csv(rows))
    _replace(folder / "table.md", _markdown(rows))


def _plain(value: Any) -> Any:
    """Replace numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: Sequence[Row]) -> str:
    n_classes = max((len(row.class_accuracies or []) for row in rows), default=0)
    simple = ("variant", "epochs", "train_loss", "val_loss", "accuracy", "balanced_accuracy", "majority_share")
    simple += ("true_majority_share", "active_dims", "verdict", "error")
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    criteria = [each.name for each in rows[0].criteria] if rows else []
    writer.writerow([*simple, *(f"accuracy_class_{k}" for k in range(n_classes)), *criteria])
    for row in rows:
        classes = [*(row.class_accuracies or []), *[None] * n_classes][:n_classes]
        writer.writerow([*(getattr(row, key) for key in simple), *classes, *(each.level for each in row.criteria)])
    return page.getvalue()


def _markdown(rows: Sequence[Row]) -> str:
    heads = list(_cells(rows[0])) if rows else []
    lines = [f"| {' | '.join([*heads, 'verdict'])} |", "|" + "---|" * (len(heads) + 1)]
    for row in rows:
        lines.append(f"| {' | '.join([*_cells(row).values(), row.verdict])} |")
    for row in rows:
        lines += ["", f"**{row.variant}**", ""]
        lines += [f"- {each.name}: {each.level}, {each.found}" for each in row.criteria]
        lines += [f"- crashed: {row.error}"] if row.error else []
    return "\n".join(lines) + "\n"


def _replace(path: Path, text: str) -> None:
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf8")
