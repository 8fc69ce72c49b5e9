"""Embeddings: what `dynaclr info` says of a store that predict has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynaclr.info.description import Describer, Description, group_attributes
from viscy_data.errors import reading_file
from viscy_utils.reports.tables import ReportTable

__all__ = ["EMBEDDINGS"]

_MOST_CLASSES = 20


def _recognises(path: Path) -> bool:
    attributes = group_attributes(path)
    is_old = bool(attributes or (path / ".zgroup").exists()) and (path / "features").is_dir()
    is_unfinished = path.name.endswith(".parts") and any(path.glob("rank*/[0-9]*-[0-9]*"))
    return attributes.get("encoding-type") == "anndata" or is_old or is_unfinished


def _describe(path: Path) -> Description:
    from viscy_utils.embeddings.kind import kind_of_store, part_folders

    kind = kind_of_store(path)
    if kind == "xarray":
        step = f"dynaclr convert_to_anndata --embeddings_path {path} --output_anndata_path NEW.zarr"
        return Description("embeddings of the old layout (xarray)", {}, (), (step,))
    if kind == "parts":
        n_parts = len(part_folders(path))
        step = "give the same command again: it goes on where it stopped"
        return Description("an unfinished prediction", {"parts": n_parts}, (), (step,))
    return _describe_anndata(path)


def _describe_anndata(path: Path) -> Description:
    import zarr

    from viscy_utils.embeddings.store import import_anndata

    with reading_file(path, "a store of embeddings", "write it anew with predict"):
        group = zarr.open_group(path, mode="r", use_consolidated=False)
        obs = import_anndata().io.read_elem(group["obs"])
        facts: dict[str, Any] = {
            "cells": len(obs),
            "features": int(group["X"].shape[1]),
            "further embeddings": [f"{name} ({own.shape[1]})" for name, own in sorted(group["obsm"].arrays())],
            "columns": list(obs),
        }
        facts |= _origin(path)
    rows = [
        [name, str(len(counts)), ", ".join(f"{label} ({n})" for label, n in counts.items() if n)]
        for name in obs
        if name not in ("fov_name", "track_id", "t", "id") and (counts := _classes(obs[name])) is not None
    ]
    table = ReportTable("", ["column", "classes", "cells"], rows)
    steps = (
        f"dynaclr evaluate --embeddings {path} --output-dir report",
        f"dynaclr export-atlas {path} --output atlas.parquet",
    )
    return Description("embeddings (AnnData)", facts, (table,) if rows else (), steps)


def _classes(column: Any) -> Any:
    """Count the classes of a column of text or categories; None for numbers, and for many."""
    if column.dtype.kind in "iuf":
        return None
    counts = column.astype(str).value_counts()
    return counts if len(counts) <= _MOST_CLASSES else None


def _origin(path: Path) -> dict[str, Any]:
    from viscy_utils.embeddings.origin import read_origin

    origin = read_origin(path)
    if origin is None:
        return {"origin": "not recorded"}
    checkpoint = origin["checkpoint"]
    place = ", ".join(f"{key} {checkpoint[key]}" for key in ("epoch", "step") if key in checkpoint)
    return {
        "model": origin["model"],
        "checkpoint": (checkpoint["path"] or "none") + (f" ({place})" if place else ""),
        "written": origin["date"],
        "versions": [f"{name} {version}" for name, version in origin["versions"].items()],
    }


EMBEDDINGS = Describer("embeddings", _recognises, _describe)
