"""`dynaclr info`: what is at a path, and what to do with it next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from viscy_utils.cli.errors import report_errors

if TYPE_CHECKING:
    from dynaclr.info import Description

__all__ = ["info"]


@click.command(
    "info",
    epilog="\b\nExample:\n  dynaclr info plate.zarr\n  dynaclr info embeddings.zarr --json",
)
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
def info(path: str, as_json: bool) -> None:
    """Say what PATH is, what is in it, and what to do with it next.

    Known are image stores, files of microscopes, tracks of any program, indexes, embeddings, checkpoints, run folders,
    linear classifiers, corrections, reports, tables of labels, statistics, exported models, experiments and
    configurations: what the commands read and write. Nothing is changed, and nothing in a file is executed.
    """
    with report_errors("dynaclr"):
        from dynaclr.info import describe
        from viscy_utils.reports.files import json_text

        found = describe(path)
        if as_json:
            click.echo(json_text(_plain(path, found)), nl=False)
        else:
            _show(path, found)


def _plain(path: str, found: Description) -> dict[str, Any]:
    tables = [[dict(zip(table.columns, row, strict=True)) for row in table.rows] for table in found.tables]
    return {"path": path, "kind": found.kind, "facts": found.facts, "tables": tables, "next": found.next_steps}


def _show(path: str, found: Description) -> None:
    from rich.console import Console

    click.echo(f"{path}: {found.kind}")
    for name, value in found.facts.items():
        if value is None or value in ("", [], ()):
            continue
        listed = isinstance(value, list | tuple)
        if listed and any(":" in str(entry) for entry in value):
            click.echo("\n".join([f"  {name}:", *(f"    {entry}" for entry in value)]))
        else:
            click.echo(f"  {name}: {', '.join(map(str, value)) if listed else value}")
    console = Console()
    for table in found.tables:
        console.print(table.terminal())
    for step in found.next_steps:
        click.echo(f"next: {step}")
