"""Write what all examples run on: three small experiments, and annotations of their cells.

``data/`` then holds a store, tracks and ``annotations.csv`` of each experiment, and ``experiments.yml``.
"""

from pathlib import Path

import pandas as pd

from viscy_data.synthetic import ExperimentSpec, Nuisance, write_experiments

ROOT = Path("data")
ALIKE = {"fovs_per_well": 2, "n_frames": 8, "n_cells": 8, "shape": (1, 112, 112), "infection_mean_hours": 2.0}
EXPERIMENTS = [  # the same biology, by different reporters and microscopes
    ExperimentSpec("monday", interval_minutes=60.0, **ALIKE),
    ExperimentSpec("tuesday", reporter="mito", interval_minutes=60.0, nuisance=Nuisance(gain=900.0), **ALIKE),
    ExperimentSpec("wednesday", interval_minutes=60.0, nuisance=Nuisance(gain=250.0, blur_px=0.9), **ALIKE),
]


def annotate(truth: pd.DataFrame) -> pd.DataFrame:
    """Name the state of every cell that is not between two, as somebody does who looks at the movie."""
    settled = truth[truth["infection_progress"].isin([0, 1])]
    state = settled["infection_progress"].map({0: "healthy", 1: "infected"})
    return settled[["experiment", "fov_name", "track_id", "t"]].assign(infection_state=state)


def main() -> None:
    """Write the data."""
    write_experiments(EXPERIMENTS, ROOT, seed=0)
    for spec in EXPERIMENTS:
        folder = ROOT / spec.name
        annotate(pd.read_csv(folder / "truth.csv")).to_csv(folder / "annotations.csv", index=False)


if __name__ == "__main__":
    main()
