"""`cytoland demo`: virtual staining from simulated stacks to a report, in a few minutes."""

from __future__ import annotations

from pathlib import Path

import click

from viscy_utils.cli.application import CONTEXT_SETTINGS
from viscy_utils.cli.errors import report_errors

__all__ = ["demo"]


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("cytoland_demo"),
    show_default=True,
    help="New folder for the plate, configs, checkpoint, predicted plate and report.",
)
@click.option("--seed", default=42, show_default=True, help="Of simulation, training and the linear filter.")
@click.option("--max-epochs", default=20, show_default=True, type=click.IntRange(min=1), help="Length of the training.")
@click.option(
    "--fovs",
    default=8,
    show_default=True,
    type=click.IntRange(min=2),
    help="FOVs to train and validate on; three more are held out.",
)
@report_errors("cytoland")
def demo(output_dir: Path, seed: int, max_epochs: int, fovs: int) -> None:
    """Simulate a plate, train a UNeXt2 to predict nuclei from phase, and compare it with a linear filter.

    Both are judged on held-out FOVs by correlation, structural similarity and signal-to-noise ratio. The configs stay
    in the output folder, ready to be edited and run again with `cytoland fit` and `cytoland predict`.
    """
    import time

    from rich.console import Console

    from cytoland.demo import run_demo

    start = time.monotonic()
    run_demo(output_dir, seed=seed, max_epochs=max_epochs, n_fovs=fovs)
    minutes = (time.monotonic() - start) / 60
    console = Console(soft_wrap=True)
    console.print(f"wrote {output_dir / 'prediction.zarr'} and {output_dir / 'report'} in {minutes:.1f} minutes")
    console.print(f"next: look at {output_dir / 'report' / 'report.png'}, edit {output_dir / 'fit.yml'}")
