"""Tracks of any program: what `dynaclr info` says of a file, and of a folder of tables."""

from __future__ import annotations

from pathlib import Path

from dynaclr.info.description import Describer, Description, group_attributes
from viscy_data.errors import InputError
from viscy_data.stores import FovInfo, FovKey
from viscy_data.tracks import ImportedTracks, find_tracks, import_tracks, read_tracks, summarize_tracks
from viscy_data.tracks.ctc import CTC_FILES
from viscy_data.tracks.formats import FORMATS, recognise
from viscy_utils.reports.tables import ReportTable

__all__ = ["TRACKS", "TRACKS_FOLDER", "describe_tables", "has_tables", "summary_table"]

_SUFFIXES = (".csv", ".tsv", ".txt", ".xml", ".h5", ".hdf5", ".hdf", ".npy", ".npz")
# Counts do not depend on how large a pixel is, but positions in physical units are refused without one.
_ANY_SCALE = FovInfo(FovKey("", ""), (1, 1, 1, 1, 1), "uint8", (), (1.0, 1.0, 2.0, 2.0, 2.0))
_COLUMNS = ("FOV", "cells", "tracks", "median length", "gaps", "divisions", "with a later one")


def summary_table(tracks: dict[str, ImportedTracks]) -> ReportTable:
    """Count the tracks of each FOV."""
    rows = []
    for name, own in tracks.items():
        counts = summarize_tracks(own.table)
        numbers = (counts.n_cells, counts.n_tracks, f"{counts.median_length:g}", counts.n_gaps, counts.n_divisions)
        rows.append([name, *map(str, numbers), f"{counts.later_share:.0%}"])
    return ReportTable("", _COLUMNS, rows)


def _recognises(path: Path) -> bool:
    if path.is_dir():
        return "geff" in group_attributes(path) or any((path / name).is_file() for name in CTC_FILES)
    try:
        return path.suffix.lower() in _SUFFIXES and recognise(path) in FORMATS
    except InputError:
        return False


def _describe(path: Path) -> Description:
    name = recognise(path)
    imported = import_tracks(path, _ANY_SCALE, format=name)
    facts = {"format": f"{name}: {FORMATS[name].description}", "columns": list(imported.table), "notes": imported.notes}
    step = f"dynaclr import-tracks {path} --store PLATE -o tracks"
    return Description("tracks", facts, (summary_table({path.name: imported}),), (step,))


def _tables(path: Path) -> dict[str, Path]:
    """Return the tables of FOVs below a folder."""
    names = {"/".join(folder.relative_to(path).parts) for folder in path.glob("[!.]*/[!.]*/[!.]*") if folder.is_dir()}
    found = {name: find_tracks(path, name) for name in sorted(names)}
    return {name: table for name, table in found.items() if table is not None}


def has_tables(path: Path) -> bool:
    """Tell whether a folder has tracking tables of FOVs below it."""
    return path.is_dir() and bool(_tables(path))


def describe_tables(path: Path) -> Description:
    """Describe the tracking tables below a folder, which may be a plate of its own."""
    tracks = {}
    for name, table in _tables(path).items():
        notes: list[str] = []
        tracks[name] = ImportedTracks(read_tracks(table, notes=notes), tuple(notes))
    facts = {
        "FOVs": len(tracks),
        "cells": sum(len(own.table) for own in tracks.values()),
        "columns": list(dict.fromkeys(name for own in tracks.values() for name in own.table)),
        "notes": [f"{name}: {note}" for name, own in tracks.items() for note in own.notes],
    }
    step = f"dynaclr init PLATE --tracks {path}"
    return Description("a folder of tracking tables, one per FOV", facts, (summary_table(tracks),), (step,))


TRACKS = Describer("tracks", _recognises, _describe)
TRACKS_FOLDER = Describer("a folder of tracks", has_tables, describe_tables)
