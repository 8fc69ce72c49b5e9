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

import lazy_loader

from viscy_data.optional import require

for _dependency in ("pandas", "scipy.ndimage"):
    require(_dependency, extra="triplet")

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "benchmark_tables": ["write_track_tables"],
        "demo": ["demo_experiments"],
        "population": ["TRACK_COLUMNS", "simulate_tracks"],
        "public_layouts": ["LiveCellPaths", "write_ctmc", "write_livecell"],
        "rendering": ["render_fov"],
        "reporters": ["REPORTERS"],
        "specs": ["ExperimentSpec", "Nuisance"],
        "writer": ["ExperimentPaths", "write_experiment", "write_experiments"],
    },
)
