from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml

from dynaclr.experiment import ExperimentConfig
from viscy_data.stores import PlateWriter, update_attributes
from viscy_data.testing import Encoding, write_encoded_plate
from viscy_data.tracks import write_tracks
from viscy_utils.testing.commands import Commands


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Run programs in forks of a process that has imported what most of them need, and nothing of ours."""
    preloaded = ["torch", "lightning.pytorch", "monai.transforms", "pandas", "timm"]
    server = Commands(None, tmp_path_factory.mktemp("programs"), preloaded)
    yield server
    server.close()


@pytest.fixture
def make_experiment(tmp_path):
    """Return a factory of experiments on disk: empty images, one table per FOV (None: no table)."""

    def make(name="first", fovs=None, shape=(10, 1, 64, 96), channel_names=("Phase", "GFP"), **fields):
        fovs = {"A/1/0": track_rows({0: range(5)})} if fovs is None else fovs
        n_frames, *zyx = shape
        store, tracks = tmp_path / name / "plate.zarr", tmp_path / name / "tracks"
        image = np.zeros((n_frames, len(channel_names), *zyx), np.uint8)
        with PlateWriter(store, list(channel_names), chunks=image.shape) as plate:
            for fov, table in fovs.items():
                plate.write(fov, image)
                if table is not None:
                    write_tracks(table, tracks / fov / "tracks.csv")
        wells = sorted({fov.rpartition("/")[0] for fov in fovs})
        fields = {"source_channel": list(channel_names), "condition_wells": {"control": wells}} | fields
        return ExperimentConfig(name, str(store), str(tracks), list(channel_names), **fields)

    return make


def track_rows(frames, parents=None, y=32.0, x=48.0):
    """Return a tracking table: frames of each track, parents of some."""
    rows = [(track, t, y, x, (parents or {}).get(track, -1)) for track, times in frames.items() for t in times]
    return pd.DataFrame(rows, columns=["track_id", "t", "y", "x", "parent_track_id"])


@pytest.fixture(name="track_rows")
def track_rows_fixture():
    """Return the factory of tracking tables."""
    return track_rows


# Experiments whose pixels say where they come from.

ENCODED_SHAPE = (6, 3, 3, 40, 48)  # T, C, Z, Y, X
ENCODED_FOVS = ("A/1/0", "B/1/0")  # in both experiments


class EncodedExperiments(NamedTuple):
    """Experiments on disk: the file that lists them, their settings, and the code of their pixels."""

    yaml: Path
    configs: tuple[ExperimentConfig, ...]
    encoding: Encoding


def encoded_tables(plate):
    """Return the tracks of the FOVs: a division, a long track, a cell seen once; centres differ between plates."""
    division = {1: range(3), 2: range(3, 6), 3: range(3, 6), 4: range(6)}
    first = track_rows(division, {2: 1, 3: 1})
    first["y"] = 12.25 + 3.0 * first["track_id"] + plate
    first["x"] = 14.75 + 5.0 * first["track_id"] + 0.5 * first["t"]
    second = track_rows({1: range(6), 9: [2]}, y=1.5, x=46.0)  # at the border
    return {"A/1/0": first, "B/1/0": second}


@pytest.fixture
def encoded_experiments(tmp_path):
    """Return a factory of two experiments with equal FOV names, other channel orders and other frame intervals."""

    def make(statistics=(), intervals=(30.0, 60.0), **fields):
        encoding = Encoding(2, len(ENCODED_FOVS), ENCODED_SHAPE)
        layouts = [
            ("first", ["Phase", "GFP", "DAPI"], ["Phase", "GFP"]),
            ("second", ["RFP", "DAPI", "Phase"], ["Phase", "RFP"]),
        ]
        configs = []
        for plate, (name, channels, used) in enumerate(layouts):
            store, tracks = tmp_path / name / "plate.zarr", tmp_path / name / "tracks"
            write_encoded_plate(store, encoding, plate, ENCODED_FOVS, channels)
            for fov, table in encoded_tables(plate).items():
                write_tracks(table, tracks / fov / "tracks.csv")
                if name in statistics:
                    update_attributes(store, fov, "normalization", encoded_statistics(plate, fov, channels))
            config = ExperimentConfig(
                name, str(store), str(tracks), channels, used, {"uninfected": ["A/1"], "infected": ["B/1"]},
                interval_minutes=intervals[plate], start_hpi=float(plate),
            )  # fmt: skip
            configs.append(dataclasses.replace(config, **fields))
        path = tmp_path / "experiments.yml"
        path.write_text(yaml.safe_dump({"experiments": [dataclasses.asdict(config) for config in configs]}))
        return EncodedExperiments(path, tuple(configs), encoding)

    return make


def encoded_statistics(plate, fov, channels):
    """Return statistics that differ between plates, FOVs and channels: mean 1000 p + 100 f + 10 c, std 2."""
    return {
        channel: {"fov_statistics": {"mean": encoded_mean(plate, fov, number), "std": 2.0}}
        for number, channel in enumerate(channels)
    }


def encoded_mean(plate, fov, channel):
    return 1000.0 * plate + 100.0 * ENCODED_FOVS.index(fov) + 10.0 * channel


@pytest.fixture(name="encoded_mean")
def encoded_mean_fixture():
    """Return the mean that is stored for (plate number, FOV name, number of the channel in the store)."""
    return encoded_mean
