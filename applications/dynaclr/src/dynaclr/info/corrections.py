"""Saved corrections of embeddings: what `dynaclr info` says of one."""

from __future__ import annotations

from pathlib import Path

from dynaclr.info.array_files import has_schema
from dynaclr.info.description import Describer, Description
from viscy_utils.reports.tables import ReportTable

__all__ = ["CORRECTION"]


def _describe(path: Path) -> Description:
    from viscy_utils.evaluation.correction import load_correction

    correction, content = load_correction(path)
    facts = {
        "method": correction.method,
        "features": correction.n_features,
        "origin": [f"{name}: {value}" for name, value in content["origin"].items()],
    }
    rows = [(name, f"{count:,}") for name, count in correction.n_controls.items()]
    table = ReportTable("", ("fitted on", "control cells"), rows)
    step = f"dynaclr correct EMBEDDINGS.zarr --transform {path} --controls CONDITION"
    return Description("a correction of embeddings", facts, (table,), (step,))


CORRECTION = Describer("a correction of embeddings", lambda path: has_schema(path, "viscy correction"), _describe)
