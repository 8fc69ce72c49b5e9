"""`dynaclr import-images`: bring the files of microscopes into an OME-Zarr plate."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from viscy_utils.cli.errors import report_errors

if TYPE_CHECKING:
    from viscy_data.images import ImportOptions, ImportPlan

__all__ = ["import_images"]

_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command("import-images")
@click.argument("sources", nargs=-1, required=True, metavar="SRC...", type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Where the plate will be.")
@click.option(
    "--pattern",
    help="Names of the files, with {row} {col} or {well}, {fov}, {t}, {z}, {channel}, {days} {hours} {minutes} "
    "{seconds} in their places and * for anything. By default it is looked for.",
)
@click.option("--axes", help="Axes of TIFFs that do not name them, or wrongly, such as TYX or TCYX.")
@click.option("--channels", metavar="NAMES", help="Names of the channels in their order, A,B, or old=new,old=new.")
@click.option("--pixel-size", type=_POSITIVE, metavar="UM", help="Micrometres per pixel.")
@click.option("--z-step", type=_POSITIVE, metavar="UM", help="Micrometres from slice to slice.")
@click.option("--interval", metavar="TIME", help="From frame to frame, with its unit: 10min, 30s, 0.5h.")
@click.option("--well", help="Well of all FOVs, such as B3.")
@click.option(
    "--map",
    "table",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="CSV with the columns source and fov (row/column/fov), and position for files with several.",
)
@click.option("--fill-missing", is_flag=True, help="Leave planes that are missing zero, instead of refusing them.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace an existing plate, and start an interrupted import over.")
def import_images(
    sources: tuple[Path, ...],
    output: Path,
    pattern: str | None,
    axes: str | None,
    channels: str | None,
    pixel_size: float | None,
    z_step: float | None,
    interval: str | None,
    well: str | None,
    table: Path | None,
    fill_missing: bool,
    dry_run: bool,
    overwrite: bool,
) -> None:
    """Write the images of SRC..., files or folders, into one OME-Zarr plate.

    Reads TIFF, OME-TIFF, hyperstacks of ImageJ, stacks of Micro-Manager, ND2, CZI and LIF; other formats with plugins
    of bioio. Sizes and intervals come from the files, or from options. An interrupted import is continued by the same
    command.

    Example: dynaclr import-images tiffs --pattern '{row}{col}_s{fov}_t{t}_{channel}.tif' --interval 10min -o plate.zarr
    """
    with report_errors("dynaclr"):
        from viscy_data.files import refuse_existing
        from viscy_data.images import ImportOptions, parse_interval

        refuse_existing(output, overwrite, remedy="choose another --output, or replace it with --overwrite")
        options = ImportOptions(
            pattern=pattern,
            axes=axes.upper() if axes else None,
            channels=[name.strip() for name in channels.split(",")] if channels else [],
            pixel_size_um=pixel_size,
            z_step_um=z_step,
            interval_seconds=parse_interval(interval) if interval else None,
            well=well,
            table=table,
            fill_missing=fill_missing,
        )
        plan = _planned(sources, options)
        for line in _described(plan):
            click.echo(line)
        if not dry_run:
            _write(plan, output, overwrite)
            click.echo(f"wrote {output}: {len(plan.fovs)} FOVs, channels {', '.join(plan.channel_names)}")
            click.echo(
                f"next: dynaclr import-tracks TRACKS... --store {output} -o tracks, "
                f"or, with tables: dynaclr init {output} --tracks tracks"
            )


def _planned(sources: tuple[Path, ...], options: ImportOptions) -> ImportPlan:
    from rich.progress import Progress

    from viscy_data.images import plan_import

    with Progress(transient=True) as bar:
        task = bar.add_task("Looking at files", total=None)
        return plan_import(sources, options, on_file=lambda n_files: bar.update(task, advance=1, total=n_files))


def _write(plan: ImportPlan, output: Path, overwrite: bool) -> None:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from viscy_data.images import import_images as write_plate

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, TimeRemainingColumn()) as bar:
            task = bar.add_task("Writing", total=None)
            write_plate(plan, output, overwrite, lambda done, total: bar.update(task, completed=done, total=total))
    except KeyboardInterrupt as err:
        command = shlex.join(["dynaclr", *(word for word in sys.argv[1:] if word != "--overwrite")])
        first = f"remove {output}; then" if output.exists() else "the same command"
        raise KeyboardInterrupt(f"what is written is kept; {first} goes on: {command}") from err


def _described(plan: ImportPlan) -> list[str]:
    """Say what the plan is: sizes, FOVs with the files that they come from, what was decided."""
    lines = []
    shapes = dict.fromkeys((fov.shape, fov.dtype) for fov in plan.fovs)
    for shape, dtype in shapes:
        own = [fov for fov in plan.fovs if (fov.shape, fov.dtype) == (shape, dtype)]
        sizes = " x ".join(f"{size} {axis}" for axis, size in zip("TCZYX", shape, strict=True))
        lines.append(f"{len(own)} FOVs of {sizes}, {dtype}:")
        for fov in own[:12]:
            first, n_files = next(iter(fov.sources.values())), len(fov.sources)
            position = (
                f", position {first.position} {first.facts.name}".rstrip() if first.position or first.facts.name else ""
            )
            more = f" and {n_files - 1} more files" if n_files > 1 else ""
            lines.append(f"  {fov.name}: {first.path.name}{position}{more}")
        if len(own) > 12:
            lines.append(f"  and {len(own) - 12} more")
    return [*lines, *plan.notes]
