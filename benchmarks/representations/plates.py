"""Simulated plates that share their biology and differ in all that should not matter, as much as asked for."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from representations.options import digest_of
from viscy_data.synthetic import ExperimentSpec, Nuisance, write_experiments
from viscy_utils.evaluation.embedded import canonical_cells

SEVERITIES = {"mild": 0.4, "medium": 1.0, "severe": 1.6}
"""How far the microscopes are from a common one, relative to those below."""

_COMMON = {"gain": 500.0, "offset": 200.0, "blur_px": 0.7, "illumination": 0.2, "noise": 0.05}
_MICROSCOPES = {
    "er_widefield": {"gain": 400.0, "offset": 110.0, "blur_px": 1.1, "illumination": 0.7, "noise": 0.04},
    "mito_confocal": {"gain": 1100.0, "offset": 420.0, "blur_px": 0.5, "illumination": 0.1, "noise": 0.1},
    "lysosome_slow": {"gain": 230.0, "offset": 250.0, "blur_px": 0.8, "illumination": 0.4, "noise": 0.07},
    "membrane_old": {"gain": 700.0, "offset": 90.0, "blur_px": 1.3, "illumination": 0.5, "noise": 0.08},
}
_ACQUISITIONS = {  # reporter, channels in order, minutes between frames, hours post infection at the first
    "er_widefield": ("er", ("Phase3D", "GFP"), 30.0, 4.0),
    "mito_confocal": ("mito", ("GFP", "Phase3D"), 20.0, 3.0),
    "lysosome_slow": ("lysosome", ("DAPI", "Phase3D", "GFP"), 45.0, 5.0),
    "membrane_old": ("membrane", ("GFP", "Phase3D"), 30.0, 3.5),
}
EXPERIMENTS = tuple(_ACQUISITIONS)


class Plates(NamedTuple):
    """Plates on disk, and the truth of every cell."""

    experiments_yaml: Path
    truth: pd.DataFrame


def experiments(severity: str, hours: float = 9.0, n_cells: int = 16) -> list[ExperimentSpec]:
    """Describe four experiments of two FOVs per condition."""
    return [
        ExperimentSpec(
            name,
            reporter=reporter,
            channel_names=channels,
            interval_minutes=minutes,
            start_hpi=start,
            n_frames=round(hours * 60 / minutes),
            n_cells=n_cells,
            fovs_per_well=2,
            shape=(1, 256, 256),
            infection_mean_hours=4.0,
            nuisance=_microscope(name, SEVERITIES[severity]),
        )
        for name, (reporter, channels, minutes, start) in _ACQUISITIONS.items()
    ]


def _microscope(name: str, severity: float) -> Nuisance:
    """Move from the common microscope to the experiment's and beyond, on a logarithmic scale."""
    own = _MICROSCOPES[name]
    return Nuisance(**{key: float(common * (own[key] / common) ** severity) for key, common in _COMMON.items()})


def make_plates(folder: Path, severity: str, seed: int, hours: float, n_cells: int) -> Plates:
    """Write the plates of a severity and seed, once."""
    specs = experiments(severity, hours, n_cells)
    root = folder / f"{severity}-{seed}-{digest_of([repr(spec) for spec in specs])[:8]}"
    if not root.exists():
        write_experiments(specs, root, seed=seed)
    truth = pd.concat([pd.read_csv(root / spec.name / "truth.csv") for spec in specs], ignore_index=True)
    truth = canonical_cells(truth)
    truth["infection_time_hpi"] = truth["infection_time_hpi"].replace(np.inf, np.nan)
    return Plates(root / "experiments.yml", truth)
