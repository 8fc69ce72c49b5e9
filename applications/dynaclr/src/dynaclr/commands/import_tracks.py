"""`dynaclr import-tracks`: bring the tracks of other programs beside the FOVs of a store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click

from viscy_utils.cli.errors import report_errors

__all__ = ["import_tracks"]


@click.command("import-tracks")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--store", required=True, metavar="PLATE", help="HCS OME-Zarr store that was tracked.")
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the tables."
)
@click.option("--format", "format_name", default="auto", show_default=True, help="Name of the format.")
@click.option(
    "--map",
    "mapping",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV with the columns source and fov; by default the FOV is part of the source's path, such as A_1_0.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing tables.")
def import_tracks(
    sources: tuple[Path, ...], store: str, output: Path, format_name: str, mapping: Path | None, overwrite: bool
) -> None:
    """Read tracks of SOURCES and write one table per FOV, with a summary.

    Formats: table (CSV with track_id, t, y, x, as ultrack writes it), btrack, trackmate-csv, trackmate-xml, ctc
    (folder of the Cell Tracking Challenge). Positions in physical units are converted by the scale of the store.
    """
    with report_errors("dynaclr"):
        from rich.console import Console
        from rich.table import Table

        from viscy_data.stores import read_plate
        from viscy_data.tracks import count_outside, describe_outside, write_tracks
        from viscy_data.tracks.formats import import_tracks as read_source
        from viscy_data.tracks.imported import summarize_tracks

        fovs = {fov.name: fov for fov in read_plate(store)}
        fov_of = _mapped(sources, list(fovs), mapping)
        imported = {fov_of[source]: read_source(source, fovs[fov_of[source]], format=format_name) for source in sources}
        summary = Table("FOV", "cells", "tracks", "median length", "gaps", "divisions", "cells with a later one")
        for name, tracks in imported.items():
            counts = summarize_tracks(tracks.table)
            shown = (counts.n_cells, counts.n_tracks, counts.median_length, counts.n_gaps, counts.n_divisions)
            summary.add_row(name, *map(str, shown), f"{counts.later_share:.0%}")
        console = Console()
        console.print(summary)
        notes = [f"{name}: {note}" for name, tracks in imported.items() for note in tracks.notes]
        notes += describe_outside([count_outside(tracks.table, fovs[name]) for name, tracks in imported.items()])
        for note in notes:
            click.echo(note)
        if absent := [name for name in fovs if name not in imported]:
            click.echo(f"{len(absent)} of {len(fovs)} FOVs have no tracks: {', '.join(absent[:10])}")
        for name, tracks in imported.items():
            write_tracks(tracks.table, output / name / "tracks.csv", overwrite=overwrite)
        click.echo(f"written: {len(imported)} tables in {output}")
        click.echo(f"next: dynaclr init {store} --tracks {output}")


def _mapped(sources: Sequence[Path], fovs: Sequence[str], mapping: Path | None) -> dict[Path, str]:
    """Find the FOV of each source."""
    from viscy_data.errors import InputError, raise_all
    from viscy_data.stores import canonical_fov_name

    if mapping is not None:
        fov_of = _read_mapping(mapping)
    elif len(sources) == len(fovs) == 1:
        fov_of = {str(sources[0]): fovs[0]}
    else:
        fov_of = {str(source): _named_in(source, fovs) for source in sources}
    errors, owner = [], {}
    for source in sources:
        name = canonical_fov_name(fov_of.get(str(source), ""))
        if name not in fovs:
            fix = "name the file like its FOV (A_1_0.csv, A/1/0/...), or give --map"
            errors.append(
                InputError(str(source), found="no FOV for it", expected=f"one of {', '.join(fovs[:10])}", fix=fix)
            )
        elif owner.setdefault(name, source) != source:
            errors.append(
                InputError(str(source), found=f"FOV {name}, which {owner[name]} has too", expected="one source")
            )
    raise_all(errors)
    return {source: canonical_fov_name(fov_of[str(source)]) for source in sources}


def _named_in(source: Path, fovs: Sequence[str]) -> str:
    """Return the FOV whose row, column and number follow each other in a path, "" unless it is one."""
    words = "/".join(word for word in re.split(r"[/\\_\-. ]+", str(source)) if word)
    found = [name for name in fovs if f"/{'/'.join(re.split(r'[/_. -]+', name))}/" in f"/{words}/"]
    return found[0] if len(found) == 1 else ""


def _read_mapping(path: Path) -> dict[str, str]:
    import csv

    from viscy_data.errors import InputError

    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"source", "fov"} <= set(reader.fieldnames or ()):
            found = ", ".join(reader.fieldnames or ()) or "nothing"
            raise InputError(str(path), found=f"columns {found}", expected="columns source and fov")
        return {row["source"]: row["fov"] for row in reader}
