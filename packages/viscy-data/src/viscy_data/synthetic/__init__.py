"""Synthetic experiments with known truth, for tests, demos and benchmarks.

A simulator writes what a microscope and a tracking pipeline would leave on disk: HCS OME-Zarr stores, one tracking CSV
per FOV, an experiments file, and beside them the truth that real data lack. Cells move, grow and divide; in infected
wells each switches, at its own time, from a healthy to an infected texture. Experiments differ in everything that
should not matter: gain, offset, blur, illumination, noise, frame interval, reporter, order of channels.

Needs the extra ``triplet``.

>>> import tempfile
>>> from viscy_data.synthetic import ExperimentSpec, write_experiment
>>> spec = ExperimentSpec("er_plate", reporter="er", n_frames=3, n_cells=4, shape=(1, 96, 96))
>>> paths = write_experiment(spec, tempfile.mkdtemp(), seed=1)
>>> paths.store.name, paths.truth.name
('images.zarr', 'truth.csv')
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from viscy_data._optional import require

if TYPE_CHECKING:
    from viscy_data.synthetic.benchmark_tables import write_track_tables
    from viscy_data.synthetic.demo import demo_experiments
    from viscy_data.synthetic.population import TRACK_COLUMNS, simulate_tracks
    from viscy_data.synthetic.rendering import render_fov
    from viscy_data.synthetic.reporters import REPORTERS
    from viscy_data.synthetic.specs import ExperimentSpec, Nuisance
    from viscy_data.synthetic.writer import ExperimentPaths, write_experiment, write_experiments

__all__ = [
    "REPORTERS",
    "TRACK_COLUMNS",
    "ExperimentPaths",
    "ExperimentSpec",
    "Nuisance",
    "demo_experiments",
    "render_fov",
    "simulate_tracks",
    "write_experiment",
    "write_experiments",
    "write_track_tables",
]

_MODULES = {
    "REPORTERS": "reporters",
    "TRACK_COLUMNS": "population",
    "ExperimentPaths": "writer",
    "ExperimentSpec": "specs",
    "Nuisance": "specs",
    "demo_experiments": "demo",
    "render_fov": "rendering",
    "simulate_tracks": "population",
    "write_experiment": "writer",
    "write_experiments": "writer",
    "write_track_tables": "benchmark_tables",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for dependency in ("pandas", "scipy.ndimage"):
        require(dependency, extra="triplet")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
