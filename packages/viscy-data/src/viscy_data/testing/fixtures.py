"""pytest fixtures: small experiments with known truth and plates with encoded pixels, in every store format.

>>> pytest_plugins = ["viscy_data.testing.fixtures"]
>>> def test_all_cells_are_indexed(synthetic_experiments):
...     experiments = synthetic_experiments(n_experiments=2)
...     assert len(experiments.truth) > 0

PYTEST_DONT_REWRITE: there is no assertion here, and test modules may import it before it is named as a plugin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from viscy_data.optional import from_extra
from viscy_data.synthetic import ExperimentPaths, ExperimentSpec, Nuisance, write_experiments
from viscy_data.testing.encoding import Encoding, write_encoded_plate

with from_extra("triplet"):
    import pandas as pd

__all__ = [
    "PLATE_FORMATS",
    "EncodedPlates",
    "PlateFormat",
    "SyntheticExperiments",
    "encoded_plates",
    "plate_format",
    "small_experiments",
    "synthetic_experiments",
]


class PlateFormat(NamedTuple):
    """How a store is written."""

    version: Literal["0.4", "0.5"]
    sharded: bool = False

    def __str__(self) -> str:
        return f"v{self.version}{'-sharded' * self.sharded}"


PLATE_FORMATS = (PlateFormat("0.4"), PlateFormat("0.5"), PlateFormat("0.5", sharded=True))
"""All formats that stores come in."""


@dataclass(frozen=True)
class SyntheticExperiments:
    """Experiments on disk.

    Parameters
    ----------
    yaml : Path
        The experiments file.
    specs : tuple of ExperimentSpec
        What was asked for, in its order.
    """

    yaml: Path
    specs: tuple[ExperimentSpec, ...]

    @property
    def paths(self) -> dict[str, ExperimentPaths]:
        """Store, tracks and truth of each experiment."""
        root = self.yaml.parent
        return {
            spec.name: ExperimentPaths(*(root / spec.name / name for name in ("images.zarr", "tracks", "truth.csv")))
            for spec in self.specs
        }

    @property
    def truth(self) -> pd.DataFrame:
        """The truth of all experiments, read from disk."""
        return pd.concat([pd.read_csv(paths.truth) for paths in self.paths.values()], ignore_index=True)


@dataclass(frozen=True)
class EncodedPlates:
    """Plates whose pixels say where they come from; all of them have the same FOV names."""

    stores: tuple[Path, ...]
    fov_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    encoding: Encoding


def small_experiments(n_experiments: int = 2, **changes: Any) -> list[ExperimentSpec]:
    """Describe up to three small experiments that share FOV names and differ in all else.

    Parameters
    ----------
    n_experiments : int, default 2
        1 to 3.
    **changes
        Fields of :class:`viscy_data.synthetic.ExperimentSpec` to set in all of them.

    Returns
    -------
    list of ExperimentSpec
        Two wells of one FOV, 10 frames of 96 x 96 pixels, intervals of 30, 15 and 60 minutes, a short cell cycle.
    """
    if not 1 <= n_experiments <= 3:
        raise ValueError(f"n_experiments must be 1 to 3, got {n_experiments}")
    common = {"n_frames": 10, "n_cells": 6, "shape": (1, 96, 96), "cell_cycle_hours": 6.0, "infection_mean_hours": 2.0}
    common |= changes
    own = [
        {"name": "first", "reporter": "er", "nuisance": Nuisance()},
        {
            "name": "second",
            "reporter": "mito",
            "interval_minutes": 15.0,
            "channel_names": ("GFP", "Phase3D"),
            "nuisance": Nuisance(gain=900.0, offset=300.0, noise=0.08),
        },
        {
            "name": "third",
            "reporter": "nucleus",
            "interval_minutes": 60.0,
            "channel_names": ("DAPI", "Phase3D", "GFP"),
            "nuisance": Nuisance(gain=250.0, blur_px=1.2, illumination=0.4),
        },
    ]
    return [ExperimentSpec(**{**options, **common}) for options in own[:n_experiments]]


@pytest.fixture(scope="session")
def synthetic_experiments(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SyntheticExperiments]:
    """Return a factory ``(n_experiments=2, *, plate_format, seed=0, **changes) -> SyntheticExperiments``.

    Experiments that were asked for before are not written again: treat them as read-only.
    """
    made: dict[str, SyntheticExperiments] = {}

    def factory(
        n_experiments: int = 2, *, plate_format: PlateFormat = PLATE_FORMATS[1], seed: int = 0, **changes: Any
    ) -> SyntheticExperiments:
        specs = tuple(small_experiments(n_experiments, **changes))
        key = repr((specs, plate_format, seed))
        if key not in made:
            root = tmp_path_factory.mktemp("synthetic")
            made[key] = SyntheticExperiments(write_experiments(specs, root, seed=seed, **plate_format._asdict()), specs)
        return made[key]

    return factory


@pytest.fixture(scope="session", params=PLATE_FORMATS, ids=str)
def plate_format(request: pytest.FixtureRequest) -> PlateFormat:
    """Run a test once for each store format."""
    return request.param


@pytest.fixture(scope="session")
def encoded_plates(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., EncodedPlates]:
    """Return a factory ``(plate_format, n_plates=2, n_fovs=2, shape=(3, 2, 2, 48, 64), chunks=...) -> EncodedPlates``.

    Plates that were asked for before are not written again: treat them as read-only.
    """
    made: dict[tuple, EncodedPlates] = {}

    def factory(
        plate_format: PlateFormat = PLATE_FORMATS[1],
        *,
        n_plates: int = 2,
        n_fovs: int = 2,
        shape: tuple[int, int, int, int, int] = (3, 2, 2, 48, 64),
        chunks: tuple[int, int, int, int, int] = (1, 1, 1, 16, 16),
    ) -> EncodedPlates:
        key = (plate_format, n_plates, n_fovs, shape, chunks)
        if key not in made:
            encoding = Encoding(n_plates, n_fovs, shape)
            fov_names = tuple(f"{'AB'[number % 2]}/1/{number // 2}" for number in range(n_fovs))
            channel_names = tuple(f"channel {number}" for number in range(shape[1]))
            shards = tuple(-(-size // chunk) * chunk for size, chunk in zip(shape, chunks, strict=True))
            options = {"shards": shards} if plate_format.sharded else {}
            root = tmp_path_factory.mktemp("encoded")
            stores = tuple(
                write_encoded_plate(
                    root / f"plate_{plate}.zarr",
                    encoding,
                    plate,
                    fov_names,
                    channel_names,
                    version=plate_format.version,
                    chunks=chunks,
                    **options,
                )
                for plate in range(n_plates)
            )
            made[key] = EncodedPlates(stores, fov_names, channel_names, encoding)
        return made[key]

    return factory
