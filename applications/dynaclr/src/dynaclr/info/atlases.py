"""Cells for explorers of embeddings, as `export-atlas` writes them: what `dynaclr info` says of them."""

from __future__ import annotations

from pathlib import Path

from dynaclr.info.description import Describer, Description

__all__ = ["ATLAS"]

_SUFFIX = ".parquet"
_EXTRA = "the file does not say"


def _recognises(path: Path) -> bool:
    if path.suffix.lower() != _SUFFIX or not path.is_file():
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
    except (pa.ArrowInvalid, OSError):
        return False
    return {"cell", "projection_x", "projection_y"} <= set(names)


def _describe(path: Path) -> Description:
    import pyarrow.parquet as pq

    from dynaclr.evaluation.atlas_file import IMAGE, OWN_COLUMNS, explorer_command, read_origin

    file = pq.ParquetFile(path)
    names, origin = file.schema_arrow.names, read_origin(file.schema_arrow)
    facts = {
        "cells": file.metadata.num_rows,
        "embeddings": origin.get("embeddings", _EXTRA),
        "places": origin.get("layout", _EXTRA),
        "thumbnails": "yes" if IMAGE in names else "none",
        "columns": [name for name in names if name not in OWN_COLUMNS],
    }
    return Description("cells for explorers of embeddings", facts, (), (explorer_command(path, IMAGE in names),))


ATLAS = Describer("cells for explorers", _recognises, _describe)
