"""Saved indexes: what `dynaclr info` says of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dynaclr.info.description import Describer, Description
from viscy_utils.reports.tables import ReportTable

if TYPE_CHECKING:
    from dynaclr.index.record import IndexRecord

__all__ = ["INDEX"]


def _recognises(path: Path) -> bool:
    if path.suffix.lower() not in (".parquet", ".arrow"):
        return False
    from dynaclr.index.file import has_index_record

    return has_index_record(path)


def _describe(path: Path) -> Description:
    from dynaclr.index.file import read_index_record

    stored = read_index_record(path)
    record = stored.record
    if record is None:
        return Description("an index of another version", {"cells": stored.n_cells}, (), (_REBUILD,))
    changed = record.changed_tables()
    facts = {
        "cells": stored.n_cells,
        "anchors": stored.n_anchors,
        "positives": ", ".join(f"{name} {value}" for name, value in record.anchors.items()),
        "filters": [f"{name} {value}" for name, value in record.filters.items() if value is not None] or "none",
        "columns": list(stored.columns),
        "state": f"{len(changed)} tables have changed since, such as {changed[0]}" if changed else "up to date",
    }
    table = ReportTable("", ["experiment", "FOVs", "store"], _rows(record))
    steps = (_REBUILD,) if changed else (f"in the data block of the config: index_path: {path}",)
    return Description("an index of cells", facts, (table,), steps)


def _rows(record: IndexRecord) -> list[list[str]]:
    rows = []
    for name in record.experiments:
        states = [state for (experiment, _), state in record.tables.items() if experiment == name]
        rows.append([name, str(len(states)), ", ".join(dict.fromkeys(str(state[0]) for state in states))])
    return rows


_REBUILD = "dynaclr build-index EXPERIMENTS.yml INDEX.parquet --overwrite"

INDEX = Describer("an index", _recognises, _describe)
