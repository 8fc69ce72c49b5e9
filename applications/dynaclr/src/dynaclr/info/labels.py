"""Tables of labels of cells, annotated or predicted: what `dynaclr info` says of one."""

from __future__ import annotations

import csv
from pathlib import Path

from dynaclr.info.description import Describer, Description
from viscy_utils.reports.tables import ReportTable

__all__ = ["LABELS"]

_KEY = ("experiment", "fov_name", "track_id", "t", "id", "y", "x", "z", "timepoint")
_NEEDED = {"fov_name", "track_id", "t"}
_MOST_CLASSES = 20


def _recognises(path: Path) -> bool:
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            names = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return set(names) >= _NEEDED and bool(set(names) - set(_KEY))


def _describe(path: Path) -> Description:
    from viscy_utils.evaluation.labels import is_missing, read_label_table

    labels = read_label_table(path)
    own = [name for name in labels if name not in _KEY]
    rows = []
    for name in own:
        known = labels[name][~is_missing(labels[name])]
        counts = known.astype(str).value_counts()
        listed = ", ".join(f"{label} ({count})" for label, count in counts.items())
        rows.append([name, str(len(counts)), listed if len(counts) <= _MOST_CLASSES else "many"])
    table = ReportTable("", ["column", "classes", "cells"], rows)
    facts = {"cells": len(labels), "FOVs": labels["fov_name"].nunique()}
    label = next((row[0] for row in rows if 1 < int(row[1]) <= _MOST_CLASSES), own[0])
    step = f"dynaclr evaluate EMBEDDINGS.zarr --labels {path} --label {label} --output-dir report"
    return Description("a table of labels of cells", facts, (table,), (step,))


LABELS = Describer("a table of labels", _recognises, _describe)
