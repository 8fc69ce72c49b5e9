"""Image stores: what `dynaclr info` says of a plate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dynaclr.info.description import Describer, Description, group_attributes
from dynaclr.info.tracks import describe_tables, has_tables
from viscy_data.stores import FovInfo, canonical_store, open_array, read_fovs
from viscy_utils.reports.tables import ReportTable

__all__ = ["PLATE"]

_SHOWN = 12


def _recognises(path: Path) -> bool:
    attributes = group_attributes(path)
    ome = attributes.get("ome", attributes)
    return "plate" in ome or "multiscales" in ome


def _describe(path: Path) -> Description:
    fovs = read_fovs(path)
    wells = list(dict.fromkeys(fov.well for fov in fovs))
    channels = list(dict.fromkeys(name for fov in fovs for name in fov.channel_names))
    statistics, is_complete = _statistics(fovs)
    facts = {
        "wells": f"{len(wells)}: {_listed(wells)}",
        "FOVs": f"{len(fovs)}: {_listed([fov.name for fov in fovs])}",
        "channels": channels,
        "Zarr format": sorted({fov.zarr_format for fov in fovs if fov.zarr_format}),
        "normalisation statistics": statistics,
    }
    layouts: dict[tuple, list[FovInfo]] = {}
    for fov in fovs:
        layouts.setdefault((fov.shape, fov.dtype, fov.scale), []).append(fov)
    rows = [[str(len(own)), *_layout(own[0])] for own in layouts.values()]
    columns = ["FOVs", "T, C, Z, Y, X", "dtype", "scale", "chunks", "shards"]
    kind = "an image store (HCS OME-Zarr)"
    if [fov.path for fov in fovs] == [canonical_store(path)]:
        kind = "a FOV of a plate (OME-Zarr)" if fovs[0].name.count("/") == 2 else "an image in no plate (OME-Zarr)"
    table = ReportTable("", columns, rows)
    if has_tables(Path(path)):
        tracks = describe_tables(Path(path))
        told = {f"tracks: {name}": value for name, value in tracks.facts.items()}
        return Description(f"{kind} with tracking tables", facts | told, (table, *tracks.tables), tracks.next_steps)
    prepare = (f"dynaclr preprocess --data_path {path}",) if fovs and not is_complete else ()
    return Description(kind, facts, (table,), (*prepare, f"dynaclr init {path} --tracks TRACKS"))


def _layout(fov: FovInfo) -> list[str]:
    layout = open_array(fov).chunk_layout
    read, write = ([size or 1 for size in own.shape] for own in (layout.read_chunk, layout.write_chunk))
    scale = " ".join(f"{step:g}" for step in fov.scale)
    return [_shape(fov.shape), fov.dtype, scale, _shape(read), "" if read == write else _shape(write)]


def _statistics(fovs: Sequence[FovInfo]) -> tuple[str, bool]:
    """Say for how many FOVs there are statistics of all channels."""
    from viscy_data.norm_meta import read_norm_meta  # imports torch

    stored = [read_norm_meta(fov.key) or {} for fov in fovs]
    n_complete = sum(set(fov.channel_names) <= set(own) for fov, own in zip(fovs, stored, strict=True))
    levels = sorted({level for own in stored for channel in own.values() for level in channel})
    if not any(stored):
        return "none", False
    return f"{', '.join(levels)}; all channels in {n_complete} of {len(fovs)} FOVs", n_complete == len(fovs)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _shape(shape: Sequence[int]) -> str:
    return " ".join(map(str, shape))


PLATE = Describer("an image store", _recognises, _describe)
