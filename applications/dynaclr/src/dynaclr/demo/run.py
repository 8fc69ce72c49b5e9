"""Simulate experiments, then train, predict and report through the same command line as on real ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import pandas as pd
from rich.console import Console

from dynaclr.config import load_data_module
from dynaclr.evaluation.report import Comparison, evaluate_embeddings
from dynaclr.inspection import inspect_data, report_tables
from dynaclr.pair_page import PairImages, example_pairs
from viscy_data.synthetic import ExperimentSpec, demo_experiments, write_experiments
from viscy_utils.cli import main as lightning_main
from viscy_utils.cli.demo import demo_configs, fov_bar, quiet_demo, refuse_filled

__all__ = ["run_demo"]

CONFIGS = ("fit.yml", "predict.yml", "untrained.yml")
_FULL_HOURS = 12.0  # what demo_experiments records at scale 1


def run_demo(output_dir: Path, *, seed: int = 42, max_epochs: int = 3, hours: float = 9.0) -> list[Comparison]:
    """Run the demo.

    Leaves in ``output_dir``: ``data/`` (stores, tracks, truth, ``experiments.yml``), ``infection.csv`` (labels), the
    configs, ``runs/`` (checkpoints and log), ``embeddings.zarr``, ``untrained.zarr`` and ``report/``.

    Parameters
    ----------
    output_dir : Path
        Must not hold anything yet.
    seed : int, default 42
        Of the simulation, the training and the report.
    max_epochs : int, default 3
        Length of the training.
    hours : float, default 9.0
        Length of the simulated recordings.

    Returns
    -------
    list of Comparison
        The trained encoder, the same encoder untrained, and PCA of raw and of normalised pixels.

    Raises
    ------
    FileExistsError
        If ``output_dir`` is not empty.
    """
    refuse_filled(output_dir)
    console = Console()
    specs = demo_experiments(hours / _FULL_HOURS)
    held_out = specs[-1].name
    with quiet_demo():
        _simulate(specs, output_dir, seed, console)
        demo_configs("dynaclr.demo", CONFIGS, output_dir, seed=seed, max_epochs=max_epochs, held_out=held_out)
        with chdir(output_dir):  # the configs name their files relative to their folder
            console.rule("What goes into a batch")
            pairs = _inspect(Path("fit.yml"), console)
            console.rule(f"Training; {held_out} is held out")
            lightning_main(["fit", "--config", "fit.yml"], prog="dynaclr")
            predict = ["predict", "--config", "fit.yml", "--config", "predict.yml"]
            console.rule("Embedding all cells, trained encoder")
            lightning_main(predict, prog="dynaclr")
            console.rule("Embedding all cells, untrained encoder")
            lightning_main([*predict, "--config", "untrained.yml"], prog="dynaclr")
            console.rule("Report")
            return evaluate_embeddings(
                {"trained": "embeddings.zarr", "untrained": "untrained.zarr"},
                "infection",
                Path("report"),
                pixel_configs=[Path("fit.yml"), Path("predict.yml")],
                labels=[Path("infection.csv")],
                test_experiments=[held_out],
                pairs=pairs,
                seed=seed,
            )


def _simulate(specs: Sequence[ExperimentSpec], output_dir: Path, seed: int, console: Console) -> None:
    """Write the experiments, and the state of every cell that is not between the states."""
    console.rule(f"Simulating {len(specs)} experiments")
    data_dir = output_dir / "data"
    with fov_bar(console) as progress:
        write_experiments(specs, data_dir, seed=seed, progress=progress)
    truth = pd.concat([pd.read_csv(data_dir / spec.name / "truth.csv") for spec in specs], ignore_index=True)
    settled = truth[truth["infection_progress"].isin([0, 1])]
    state = settled["infection_progress"].map({0: "healthy", 1: "infected"})
    labels = settled[["experiment", "fov_name", "track_id", "t"]].assign(infection=state)
    labels.to_csv(output_dir / "infection.csv", index=False)


def _inspect(config: Path, console: Console) -> PairImages:
    """Show what ``dynaclr inspect-batches`` shows."""
    data = load_data_module([config])
    data.setup("fit")
    for table in report_tables(inspect_data(data)):
        console.print(table.terminal())
    return example_pairs(data, 12)
