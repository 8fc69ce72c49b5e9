"""`dynaclr demo`: the main job from simulated data to a report, in a few minutes."""

from __future__ import annotations

from pathlib import Path

import click

from viscy_utils.cli.application import CONTEXT_SETTINGS
from viscy_utils.cli.errors import report_errors

__all__ = ["demo"]


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog="\b\nExample:\n  dynaclr demo -o dynaclr_demo",
)
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("dynaclr_demo"),
    show_default=True,
    help="New folder for data, configs, checkpoint, embeddings and report.",
)
@click.option("--seed", default=42, show_default=True, help="Of simulation, training and report.")
@click.option("--max-epochs", default=3, show_default=True, type=click.IntRange(min=1), help="Length of the training.")
@click.option(
    "--hours",
    default=9.0,
    show_default=True,
    type=click.FloatRange(min=3),
    help="Length of the simulated recordings; cells become infected over the hours.",
)
@report_errors("dynaclr")
def demo(output_dir: Path, seed: int, max_epochs: int, hours: float) -> None:
    """Simulate three experiments, train an encoder on two, predict all and compare it on the third.

    The report sets the trained encoder beside an untrained one and beside PCA of the pixels. The configs stay in the
    output folder, ready to be edited and run again with `dynaclr fit` and `dynaclr predict`.
    """
    import time

    from dynaclr.demo import run_demo

    start = time.monotonic()
    run_demo(output_dir, seed=seed, max_epochs=max_epochs, hours=hours)
    page = output_dir / "report" / "report.html"
    page = page if page.exists() else page.with_suffix(".png")  # the page needs the extra eval
    minutes = (time.monotonic() - start) / 60
    click.echo(f"wrote {output_dir} in {minutes:.1f} minutes")
    click.echo(f"next: open {page}; edit {output_dir / 'fit.yml'}; for your own data: dynaclr init STORE --tracks DIR")
