"""`dynaclr compare-losses`: variants of a configuration, trained alike and judged."""

from __future__ import annotations

from pathlib import Path

import click

from dynaclr.commands.fit_configs import refuse_missing_configs
from dynaclr.comparison.variants import read_variants
from viscy_utils.cli.application import CONTEXT_SETTINGS
from viscy_utils.cli.config_files import read_configs
from viscy_utils.cli.errors import report_errors

__all__ = ["compare_losses"]


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog="\b\nExample:\n  dynaclr compare-losses -c fit.yml --variants variants.yml",
)
@click.option(
    "--config", "-c", required=True, type=click.Path(path_type=Path), help="Config of `dynaclr fit` that all share."
)
@click.option(
    "--variants",
    required=True,
    type=click.Path(path_type=Path),
    help="YAML with a mapping `variants` from names to keys of the config, such as model.init_args.focal_gamma.",
)
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("compare_losses"),
    show_default=True,
    help="New folder for table, curves, and logs and checkpoints of each variant.",
)
@click.option("--quick-test", is_flag=True, help="Train for 5 epochs.")
@click.option("--no-wandb", is_flag=True, help="Do not log to Weights & Biases, even where it is installed.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier comparison.")
@report_errors("dynaclr")
def compare_losses(
    config: Path, variants: Path, output_dir: Path, quick_test: bool, no_wandb: bool, overwrite: bool
) -> None:
    """Train variants of a config with one seed and the same data order, and judge them side by side.

    Writes table.md, table.csv, report.json and curves.png. A variant that crashes is reported, and the others go on;
    the exit code is then 1.
    """
    read_configs([str(config)])
    if not any("data" in variant.overrides for variant in read_variants(variants)):
        refuse_missing_configs([config])
    from dynaclr.comparison import compare_losses as compare

    rows = compare(config, variants, output_dir, quick_test=quick_test, wandb=not no_wandb, overwrite=overwrite)
    click.echo(f"wrote {output_dir}: table.md, table.csv, report.json, curves.png")
    click.echo(
        f"next: look at {output_dir / 'curves.png'}, and train the variant you choose: dynaclr fit --config {config}"
    )
    crashed = [row.variant for row in rows if row.error]
    if crashed:
        raise RuntimeError(f"{', '.join(crashed)} crashed: see train.log in their folders in {output_dir}")
