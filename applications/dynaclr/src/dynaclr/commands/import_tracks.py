"""`dynaclr import-tracks`: bring the tracks of other programs beside the FOVs of a store."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from viscy_utils.cli.errors import report_errors

if TYPE_CHECKING:
    from viscy_data.stores import FovInfo
    from viscy_data.tracks import ImportedTracks

__all__ = ["import_tracks"]


@click.command(
    "import-tracks",
    epilog="\b\nExample:\n  dynaclr import-tracks tracks.csv --store plate.zarr -o tracks",
)
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
@click.option(
    "--interval-minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MINUTES",
    help="From one frame to the next, for experiments.yml, where the store does not say.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing tables and experiments.yml.")
def import_tracks(
    sources: tuple[Path, ...],
    store: str,
    output: Path,
    format_name: str,
    mapping: Path | None,
    interval_minutes: float | None,
    overwrite: bool,
) -> None:
    """Read tracks of SOURCES, show a summary, and write one table per FOV and an experiments.yml.

    Formats: table (CSV with track_id, t, y, x, as ultrack writes it), trackmate-xml, trackmate-csv, btrack,
    btrack-hdf5, ctc (folder of the Cell Tracking Challenge, also of Trackastra), napari (.npz, or .npy with .json),
    geff. Positions in physical units are converted by the scale of the store.
    """
    with report_errors("dynaclr"):
        from rich.console import Console

        from dynaclr.info.tracks import summary_table
        from viscy_data.stores import read_fovs
        from viscy_data.tracks import count_outside, describe_outside, write_tracks

        fovs = {fov.name: fov for fov in read_fovs(store)}
        fov_of = _mapped(sources, list(fovs), mapping)
        targets = _free_targets(output, fov_of.values(), overwrite)
        imported = _read(fov_of, fovs, format_name)
        Console().print(summary_table(imported).terminal())
        notes = [f"{name}: {note}" for name, tracks in imported.items() for note in tracks.notes]
        notes += describe_outside([count_outside(tracks.table, fovs[name]) for name, tracks in imported.items()])
        if absent := [name for name in fovs if name not in imported]:
            notes.append(f"{len(absent)} of {len(fovs)} FOVs have no tracks: {', '.join(absent[:10])}")
        for note in notes:
            click.echo(note)
        for name, tracks in imported.items():
            write_tracks(tracks.table, targets[name], overwrite=overwrite)
        click.echo(f"wrote {len(imported)} tables in {output}")
        click.echo(_write_experiments(store, output, interval_minutes, overwrite))
        given = f" --interval-minutes {interval_minutes:g}" if interval_minutes else ""
        click.echo(f"next: dynaclr init {store} --tracks {output}{given}")


def _free_targets(output: Path, names: Sequence[str], overwrite: bool) -> dict[str, Path]:
    """Return the place of each FOV's table, before anything is read: none is taken, and none gets company."""
    from viscy_data.errors import InputError, raise_all
    from viscy_data.tracks import find_tracks

    targets = {name: output / name / "tracks.csv" for name in names}
    found = {name: find_tracks(output, name) for name in targets}
    raise_all(
        InputError(str(path), found="a table", expected="nothing", fix="add --overwrite, or choose another --output")
        if path == targets[name]
        else InputError(str(path), found="another table of this FOV", expected="one per FOV", fix="move it away")
        for name, path in found.items()
        if path is not None and not (overwrite and path == targets[name])
    )
    return targets


def _read(fov_of: Mapping[Path, str], fovs: Mapping[str, FovInfo], format_name: str) -> dict[str, ImportedTracks]:
    """Read all sources, and tell the problems of all together."""
    from rich.console import Console
    from rich.progress import track

    from viscy_data.errors import InputError, raise_all
    from viscy_data.tracks import import_tracks as read_source

    imported, errors = {}, []
    for source, name in track(fov_of.items(), "reading", console=Console(stderr=True), transient=True):
        try:
            imported[name] = read_source(source, fovs[name], format=format_name)
        except InputError as err:
            errors.append(err)
    raise_all(errors)
    return imported


def _write_experiments(store: str, output: Path, interval_minutes: float | None, overwrite: bool) -> str:
    """Write the description of the experiment beside the tables; say what was done."""
    import dataclasses

    from dynaclr.proposal.facts import look_at
    from dynaclr.proposal.files import experiments_text
    from dynaclr.proposal.settings import propose
    from viscy_data.errors import InputError
    from viscy_data.files import replacing

    target = output / "experiments.yml"
    if target.exists() and not overwrite:
        return f"left as it is: {target}"
    try:
        plate = look_at(Path(store), output)
        if (minutes := interval_minutes or plate.interval_minutes) is None:
            return f"not written: {target}, as the store does not say its frame interval; add --interval-minutes"
        plate = dataclasses.replace(plate, interval_minutes=minutes)
        text = experiments_text([plate], propose([plate]), output)
    except InputError as err:  # tables without cells, or without tracks, are written all the same
        return f"not written: {target}, as {err.where} has {err.found}"
    with replacing(target, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return f"wrote {target}; fill in condition_wells if there are conditions"


def _mapped(sources: Sequence[Path], fovs: Sequence[str], mapping: Path | None) -> dict[Path, str]:
    """Find the FOV of each source."""
    from viscy_data.errors import InputError, raise_all
    from viscy_data.source_map import read_source_map
    from viscy_data.stores import canonical_fov_name

    if mapping is not None:
        fov_of = {row["source"]: row["fov"] for row in read_source_map(mapping)}
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
