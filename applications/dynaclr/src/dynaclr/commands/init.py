"""`dynaclr init`: look at stores and tables, and write the two YAML files of a first training run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from viscy_utils.cli.errors import report_errors

__all__ = ["init"]


@click.command("init")
@click.argument("stores", nargs=-1, required=True, metavar="STORE...")
@click.option(
    "--tracks",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Root of the tracking tables of a store, DIR/row/column/fov/*.csv; once per store, in their order. "
    "By default a folder `tracks` beside each store.",
)
@click.option(
    "--interval-minutes",
    multiple=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="MINUTES",
    help="From one frame to the next, where a store does not say; once for all, or once per store.",
)
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("."),
    show_default=True,
    help="Folder of experiments.yml and fit.yml.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def init(
    stores: tuple[str, ...],
    tracks: tuple[Path, ...],
    interval_minutes: tuple[float, ...],
    output_dir: Path,
    overwrite: bool,
) -> None:
    """Write experiments.yml and fit.yml for the plates STORE..., ready to be trained with.

    STORE is a path or URL of a plate, of one image, or a pattern of images in quotes: 'movies/*.zarr'.

    Every proposal is explained in the files. What only you know, such as the conditions of wells, is left to fill in.

    Example: dynaclr init day1/images.zarr day2/images.zarr --tracks day1/tracks --tracks day2/tracks -o run
    """
    with report_errors("dynaclr"):
        from dynaclr.proposal.facts import look_at
        from dynaclr.proposal.files import experiments_text, fit_text, plain
        from dynaclr.proposal.settings import propose
        from viscy_data.errors import InputError
        from viscy_data.files import replacing

        targets = output_dir / "experiments.yml", output_dir / "fit.yml"
        for target in targets:
            if target.exists() and not overwrite:
                raise InputError(str(target), found="a file", expected="nothing", fix="add --overwrite to replace it")
        if tracks and len(tracks) != len(stores):
            raise InputError("--tracks", found=f"{len(tracks)} for {len(stores)} stores", expected="one per store")
        plates = [look_at(store, own) for store, own in zip(stores, tracks or [None] * len(stores), strict=True)]
        plates = _timed(_distinct(plates), interval_minutes)
        proposal = propose(plates)
        output_dir.mkdir(parents=True, exist_ok=True)
        for target, text in zip(
            targets, (experiments_text(plates, proposal, output_dir), fit_text(proposal)), strict=True
        ):
            with replacing(target, overwrite=overwrite) as temporary:
                temporary.write_text(text, encoding="utf-8")
        for plate in plates:
            click.echo(
                f"{plate.name}: {plate.n_fovs} FOVs with tracks in {len(plate.wells)} wells, "
                f"{plate.n_frames} frames of {plate.interval_minutes:g} min, channels {', '.join(plate.channel_names)}"
            )
            for remark in plate.remarks:
                click.echo(f"  look at the tables of {plate.name}: {remark}")
        for name, setting in proposal.settings.items():
            click.echo(f"  {name}: {plain(setting.value)}   # {setting.reason}")
        click.echo(f"wrote {targets[0]}, {targets[1]}: fill in condition_wells if there are conditions")
        click.echo(f"next, in {output_dir}: dynaclr inspect-batches -c fit.yml, then dynaclr fit --config fit.yml")


def _distinct(plates: list) -> list:
    """Give experiments of one name a number."""
    names = [plate.name for plate in plates]
    return [
        dataclasses.replace(plate, name=f"{plate.name}_{number}") if names.count(plate.name) > 1 else plate
        for number, plate in enumerate(plates, 1)
    ]


def _timed(plates: list, given: tuple[float, ...]) -> list:
    """Take intervals from the command line, else from the metadata; ask for what neither says."""
    from viscy_data.errors import InputError

    if len(given) not in (0, 1, len(plates)):
        found = f"{len(given)} values for {len(plates)} stores"
        raise InputError("--interval-minutes", found=found, expected="one for all, or one per store")
    if given:
        given = given * len(plates) if len(given) == 1 else given
        return [
            dataclasses.replace(plate, interval_minutes=minutes) for plate, minutes in zip(plates, given, strict=True)
        ]
    silent = [plate for plate in plates if plate.interval_minutes is None]
    if silent:
        raise InputError(
            ", ".join(str(plate.store) for plate in silent),
            field="interval_minutes",
            found="no frame interval in the metadata (multiscales: scale and unit of the time axis)",
            expected="minutes from one frame to the next",
            fix="give them: --interval-minutes 30",
        )
    return plates
