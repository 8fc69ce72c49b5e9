"""Folders of reports, and single files of them and of runs: what `dynaclr info` says of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dynaclr.info.description import Describer, Description
from viscy_utils.reports.numbers import number
from viscy_utils.reports.tables import ReportTable
from viscy_utils.runs.folder import RECORD

__all__ = ["PART", "REPORT"]

_REPORT = "report.json"
_PARTS = {
    _REPORT: "all numbers of a report",
    "report.html": "a report as a page for a browser",
    "report.md": "the tables of a report",
    "report.csv": "the scores of a report, a row for each embedding",
    "report.png": "the pictures of a report",
    "mixing.png": "a picture of a report: how experiments are mixed",
    "curves.csv": "the curves of a report, a row for each point",
    "curves.png": "the curves of a report as a picture",
    "table.csv": "the scores of compared losses",
    "table.md": "the scores of compared losses as a table",
    RECORD: "the record of a run",
    "train.log": "what a run said",
}


def _content(folder: Path) -> Any:
    try:
        return json.loads((folder / _REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_evaluation(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(row, dict) and {"name", "probe", "separability", "n_cells"} <= row.keys() for row in content
    )


def _is_comparison(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("variants"), list)


def _recognises(path: Path) -> bool:
    content = _content(path) if path.is_dir() else None
    return _is_evaluation(content) or _is_comparison(content)


def _describe(path: Path) -> Description:
    content = _content(path)
    page = next((path / name for name in ("report.html", "report.png", "table.md") if (path / name).is_file()), path)
    steps = (f"look at {page}",)
    if _is_comparison(content):
        names = [str(row.get("variant")) for row in content["variants"] if isinstance(row, dict)]
        return Description("a comparison of losses", {"variants": names}, (), steps)
    rows = [[row["name"], f"{row['n_cells']:,}", _value(row["probe"]), _value(row["separability"])] for row in content]
    table = ReportTable("", ["embedding", "cells", "probe", "experiment told from neighbours"], rows)
    facts = {"embeddings": [f"{row['name']}: {_checkpoint(row)}" for row in content]}
    return Description("a report on embeddings", facts, (table,), steps)


def _value(score: Any) -> str:
    value = score.get("value") if isinstance(score, dict) else None
    return "not computed" if value is None else number(value)


def _checkpoint(row: dict[str, Any]) -> str:
    """Name the weights that an embedding is of."""
    checkpoint = (row.get("origin") or {}).get("checkpoint") or {}
    return checkpoint.get("path") or "from no checkpoint"


def _is_part(path: Path) -> bool:
    owner = path.parent
    return path.is_file() and path.name in _PARTS and (_recognises(owner) or (owner / RECORD).is_file())


def _describe_part(path: Path) -> Description:
    return Description(_PARTS[path.name], {"of": str(path.parent)}, (), (f"dynaclr info {path.parent}",))


REPORT = Describer("a report", _recognises, _describe)
PART = Describer("a file of a report or run", _is_part, _describe_part)
