"""The tables of docs/choosing.md: one per question, filled in from the runs beside the page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import pandas as pd

from representations.measured import MEASURED

__all__ = ["Question", "fill", "kept_runs", "reference_of"]

_COLUMNS = {
    "infection": "infection",
    "mitosis_auc": "mitosis, AUC",
    "age_r2": "age, R2",
    "experiment_neighbors": "experiment by neighbours",
    "experiment_probe": "experiment by probe",
}
_BETTER = {measured.name: 1 if measured.better == "higher" else -1 for measured in MEASURED}
_MARKED = re.compile(r"(<!-- table: ([\w ]+) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """What a table answers.

    Parameters
    ----------
    options : tuple of str
        Rows; those that have not been run with all seeds are left out.
    setting : str
    seeds : tuple of int
    severities : tuple of str
        Rows of each.
    changes : bool
        Show the mean change against the option without the last of its changes (`reference_of`), sorted by that of
        infection; otherwise mean and standard deviation, in the order given.
    """

    options: tuple[str, ...]
    setting: str = "cheap"
    seeds: tuple[int, ...] = (4, 5, 6, 7, 8)
    severities: tuple[str, ...] = ("medium",)
    changes: bool = True


_KEPT = {"setting": "target", "seeds": (0, 1, 2), "changes": False}
"""Seeds on which nothing was chosen."""

QUESTIONS = {
    "best": Question(
        (
            "baseline", "AdaBN", "turned", "AdaBN, turned", "AdaBN, turned, augmentation 0",
            "AdaBN, turned, group norm", "AdaBN, turned, group norm, augmentation 0",
        ),
        **_KEPT,
    ),
    "compared": Question(
        (
            "untrained", "untrained + AdaBN", "pixel PCA", "supervised", "supervised + AdaBN",
            "supervised + AdaBN, turned", "correct: tvn", "AdaBN + tvn", "AdaBN of infected wells",
        ),
        **_KEPT,
    ),
    "prediction": Question(
        (
            "AdaBN", "AdaBN, turned", "correct: center", "correct: standardize", "correct: tvn", "correct: lot",
            "untrained", "supervised",
        )
    ),
    "batches": Question(
        (
            "not experiment-aware", "leak 0.2", "leak 0.5", "not condition-balanced", "temporal enrichment",
            "one per lineage", "near neighbours 0.25", "batch halved", "batch doubled",
        )
    ),
    "positives": Question(
        (
            "tau 0.5-4", "tau uniform", "positives: track", "positives: lineage", "lineage not masked",
            "AdaBN, tau 0-1", "AdaBN, same patch",
        )
    ),
    "losses": Question(
        (
            "temperature 0.07", "temperature 0.15", "temperature 0.6", "beta 0.5", "beta 1", "decoupled", "debiased",
            "SupCon on lineage", "Barlow Twins", "AdaBN, VICReg", "AdaBN, temperature 0.07",
        )
    ),
    "networks": Question(
        (
            "group norm", "AdaBN, group norm", "AdaBN, head without batch norm", "projection 16", "projection 256",
            "EMA 0.95", "centred on controls", "AdaBN, centred on controls", "patch of 24 px",
        )
    ),
    "augmentation": Question(
        (
            "augmentation 0", "augmentation 1.5", "AdaBN, augmentation 0", "AdaBN, augmentation 0.5",
            "AdaBN, turned, augmentation 0", "no channel dropout", "channel dropout 0.25",
        )
    ),
    "microscopes": Question(
        ("baseline", "AdaBN", "AdaBN, augmentation 0.5", "AdaBN, augmentation 0", "AdaBN, temperature 0.07, beta 0.5"),
        seeds=(4, 5, 6),
        severities=("mild", "medium", "severe"),
        changes=False,
    ),
}  # fmt: skip
"""By the name between the markers in the page."""


def reference_of(option: str) -> str:
    """Return what an option is compared with: itself without the last of its changes, or the baseline."""
    for first in ("AdaBN, turned, ", "AdaBN, "):
        if option.startswith(first) and option != first.rstrip(", "):
            return first.rstrip(", ")
    return "baseline"


def fill(page: Path, runs: pd.DataFrame) -> str:
    """Return the text of a page, with the table of each question between its markers."""

    def table(match: re.Match[str]) -> str:
        question = QUESTIONS[match[2]]
        return match[1] + "\n" + (_changes if question.changes else _means)(question, runs) + "\n" + match[4]

    return _MARKED.sub(table, page.read_text(encoding="utf8"))


def kept_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Select the runs of the figure: those of the tables of seeds on which nothing was chosen."""
    names = QUESTIONS["best"].options + QUESTIONS["compared"].options
    chosen = (runs["setting"] == "target") & runs["seed"].isin(QUESTIONS["best"].seeds) & runs["option"].isin(names)
    order = {name: number for number, name in enumerate(names)}
    return runs[chosen].sort_values("option", key=lambda own: own.map(order), kind="stable")


def _means(question: Question, runs: pd.DataFrame) -> str:
    several = len(question.severities) > 1
    rows = [["microscopes"] * several + ["option", *_COLUMNS.values()]]
    for severity in question.severities:
        for option in question.options:
            own = _scores(question, runs, severity, option)
            if own is not None:
                figures = (f"{mean(own[name]):.3f} ± {stdev(own[name]):.3f}" for name in _COLUMNS)
                rows.append([severity] * several + [option, *figures])
    return _markdown(rows)


def _changes(question: Question, runs: pd.DataFrame) -> str:
    rows = []
    for severity in question.severities:
        for option in question.options:
            reference = reference_of(option)
            own, other = (_scores(question, runs, severity, name) for name in (option, reference))
            if own is not None and other is not None:
                change = own[list(_COLUMNS)] - other[list(_COLUMNS)]
                place = (reference != "baseline", reference, -mean(change["infection"]))
                rows.append((place, [option, reference, *(_change(name, change[name]) for name in _COLUMNS)]))
    return _markdown([["option", "against", *_COLUMNS.values()], *(row for _, row in sorted(rows))])


def _change(name: str, values: pd.Series) -> str:
    """Write a mean change: bold where better on every seed, italic where worse on every seed."""
    better = values * _BETTER[name] > 0
    around = "**" if better.all() else "*" if not better.any() else ""
    return f"{around}{mean(values):+.3f}{around}"


def _scores(question: Question, runs: pd.DataFrame, severity: str, option: str) -> pd.DataFrame | None:
    """Return a row per seed; None where some were not run."""
    chosen = (runs["setting"] == question.setting) & (runs["severity"] == severity) & (runs["option"] == option)
    own = runs[chosen & runs["seed"].isin(question.seeds)].set_index("seed").sort_index()
    return own if len(own) == len(question.seeds) else None


def _markdown(rows: list[list[str]]) -> str:
    head, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *others]) + "\n"
