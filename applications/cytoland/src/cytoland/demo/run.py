"""Simulate a plate, then train, predict and report through the same command line as on a real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path

from rich.console import Console

from cytoland.demo.baseline import LinearFilter
from cytoland.demo.report import Score, compare, write_report
from viscy_data.synthetic import ExperimentSpec, Nuisance, write_experiment
from viscy_utils.cli import main as lightning_main
from viscy_utils.cli.data_module import load_data_module
from viscy_utils.cli.demo import demo_configs, fov_bar, quiet_demo, refuse_filled

__all__ = ["run_demo"]

CONFIGS = ("fit.yml", "predict.yml")
STORE = Path("data", "plate", "images.zarr")
PREDICTION = Path("prediction.zarr")
HELD_OUT = ("B/1", "B/2", "B/3")


def run_demo(output_dir: Path, *, seed: int = 42, max_epochs: int = 20, n_fovs: int = 8) -> list[Score]:
    """Run the demo.

    Leaves in ``output_dir``: ``data/`` (the plate), the configs, ``runs/`` (checkpoints, log, pictures at checkpoints),
    ``prediction.zarr`` and ``report/``.

    Parameters
    ----------
    output_dir : Path
        Must not hold anything yet.
    seed : int, default 42
        Of the simulation, the training and the linear filter.
    max_epochs : int, default 20
        Length of the training.
    n_fovs : int, default 8
        FOVs to train and validate on; three more are held out.

    Returns
    -------
    list of Score
        Of the network and of the linear filter, on each held-out FOV.

    Raises
    ------
    FileExistsError
        If ``output_dir`` is not empty.
    """
    refuse_filled(output_dir)
    console = Console()
    with quiet_demo():
        wells = {"seen": [f"A/{n}" for n in range(1, n_fovs + 1)], "held_out": list(HELD_OUT)}
        _simulate(output_dir, seed, wells, console)
        places = {name: f"[{', '.join(listed)}]" for name, listed in wells.items()}
        values = {"seed": seed, "max_epochs": max_epochs, "store": STORE.as_posix(), **places}
        demo_configs("cytoland.demo", CONFIGS, output_dir, **values)
        with chdir(output_dir):  # the configs name their files relative to their folder
            console.rule("Normalisation statistics")
            lightning_main(["preprocess", f"--data_path={STORE}", "--block_size=4"], prog="cytoland")
            console.rule("Training a UNeXt2")
            lightning_main(["fit", "--config", "fit.yml"], prog="cytoland")
            console.rule("Predicting the held-out FOVs")
            lightning_main(["predict", "--config", "fit.yml", "--config", "predict.yml"], prog="cytoland")
            console.rule("Comparing with a linear filter")
            return _report(seed, console)


def _simulate(output_dir: Path, seed: int, wells: Mapping[str, Sequence[str]], console: Console) -> None:
    """Write phase and nuclei, a FOV for each well."""
    console.rule(f"Simulating {sum(map(len, wells.values()))} FOVs")
    spec = ExperimentSpec(
        "plate",
        reporter="nucleus",
        condition_wells={name: tuple(listed) for name, listed in wells.items()},
        infected_conditions=(),
        n_frames=1,
        n_cells=30,
        shape=(9, 256, 256),
        channel_names=("Phase3D", "Nuclei"),
        reporter_channel="Nuclei",
        cell_diameter_px=28.0,
        nuisance=Nuisance(blur_px=0.8, noise=0.05),
    )
    with fov_bar(console) as progress:
        write_experiment(spec, output_dir / STORE.parts[0], seed=seed, progress=progress)


def _report(seed: int, console: Console) -> list[Score]:
    """Fit the linear filter to what the network has trained on, and judge both."""
    seen, held_out = (load_data_module(configs, "cytoland") for configs in (["fit.yml"], ["fit.yml", "predict.yml"]))
    for data in (seen, held_out):
        data.setup("test")
    linear = LinearFilter.fit(seen.test_dataset, seed=seed)
    scores, pictures = compare(held_out.test_dataset, PREDICTION, linear)
    for table in write_report(Path("report"), scores, pictures):
        console.print(table.terminal())
    return scores
