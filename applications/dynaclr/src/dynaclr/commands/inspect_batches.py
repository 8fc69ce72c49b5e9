"""`dynaclr inspect-batches`: what a config puts into its batches, before any training."""

from __future__ import annotations

from pathlib import Path

import click

from dynaclr.commands.fit_configs import config_arguments, configs_option, load_data, refuse_missing_configs
from viscy_utils.cli.application import CONTEXT_SETTINGS
from viscy_utils.cli.errors import report_errors

__all__ = ["inspect_batches"]


@click.command(
    "inspect-batches",
    context_settings=CONTEXT_SETTINGS,
    epilog="\b\nExample:\n  dynaclr inspect-batches -c fit.yml",
)
@configs_option
@click.option("--batches", default=100, show_default=True, type=click.IntRange(min=1), help="Batches to draw.")
@click.option("--ranks", default=1, show_default=True, type=click.IntRange(min=1), help="Processes to train with.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("inspect_batches"),
    show_default=True,
    help="Folder of the page of pairs, pairs.png.",
)
@click.option("--pairs", default=24, show_default=True, type=click.IntRange(min=0), help="Pairs to draw; 0 for none.")
@click.option("--overwrite", is_flag=True, help="Replace an existing page.")
def inspect_batches(
    configs: tuple[Path, ...], batches: int, ranks: int, output: Path, pairs: int, overwrite: bool
) -> None:
    """Show shares asked for and delivered, coverage, tau in hours, tracks without a positive, and example pairs."""
    with report_errors("dynaclr"):
        refuse_missing_configs(configs)
        from rich.console import Console

        from dynaclr.datamodule import MultiExperimentDataModule
        from dynaclr.inspection import inspect_data, report_tables
        from dynaclr.pair_page import example_pairs, write_pairs
        from viscy_data.errors import InputError
        from viscy_utils.cli.places import noting_places

        page = output / "pairs.png"
        if pairs and page.exists() and not overwrite:
            raise InputError(str(page), found="a file", expected="nothing", fix="add --overwrite to replace it")
        data = load_data(configs, MultiExperimentDataModule, "dynaclr.datamodule.MultiExperimentDataModule")
        with noting_places(configs):
            data.setup("fit")
        console = Console()
        for table in report_tables(inspect_data(data, batches), ranks):
            console.print(table.terminal())
        if pairs:
            output.mkdir(parents=True, exist_ok=True)
            write_pairs(example_pairs(data, pairs), page)
            click.echo(f"wrote {page}")
        click.echo(f"next: dynaclr fit {config_arguments(configs)}")
