"""One valid file or store of every kind that a command reads, small: what is spoilt."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml

from dynaclr.cli import cli
from viscy_data.testing.trackers import (
    lineage_table,
    write_btrack_csv,
    write_btrack_hdf5,
    write_ctc,
    write_trackmate_csv,
    write_trackmate_xml,
)
from viscy_data.tracks import write_geff, write_napari
from viscy_utils.embeddings.store import build_anndata, observation_table, write_anndata

CONFIGS = {
    "train.yml": {
        "task": "state",
        "train_datasets": [{"embeddings": "cells.zarr", "annotations": "labels.csv"}],
        "output_path": "classifier.npz",
    },
    "smooth.yml": {"models": [{"path": "cells.zarr", "label": "own"}], "output_dir": ".", "save_plots": False},
}
COMMANDS = [
    [*"correct cells.zarr --method center -o new.zarr --save-transform correction.npz --controls".split(), "t < 3"],
    "train-linear-classifier --config train.yml".split(),
    "evaluate-smoothness --config smooth.yml".split(),
    "build-index experiments.yml cells.parquet".split(),
    "cache-patches --config fit.yml -o patches.zarr".split(),
    "compute-features --config fit.yml -o features.zarr".split(),
]


def write_samples(trained: Path, folder: Path) -> None:
    """Write all of them into a folder, from a folder with experiments and a run that was trained on them."""
    _write_embeddings(folder)
    _write_tracks(folder)
    _write_images(folder)
    borrowed = ["first", "second", "experiments.yml", "fit.yml"]
    for name in borrowed:
        (folder / name).symlink_to(trained / name)
    for name, config in CONFIGS.items():
        (folder / name).write_text(yaml.safe_dump(config))
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for command in COMMANDS:
            with pytest.raises(SystemExit) as stopped:
                cli(command, prog_name="dynaclr")
            assert not stopped.value.code, command
    for name in (*borrowed, *CONFIGS):
        (folder / name).unlink()
    shutil.rmtree(folder / "new.zarr")
    shutil.copy(trained / "runs/trained/checkpoints/last.ckpt", folder)


def _write_embeddings(folder: Path) -> None:
    """Write embeddings of two experiments, reduced, and a table of labels."""
    cells = [
        (name, f"{row}/1/0", track, t)
        for name in ("first", "second")
        for row in "AB"
        for track in range(3)
        for t in range(4)
    ]
    table = pd.DataFrame(cells, columns=["experiment", "fov_name", "track_id", "t"])
    table["condition"] = np.where(table["fov_name"].str.startswith("A"), "uninfected", "infected")
    features = np.random.default_rng(0).normal(size=(len(table), 5)).astype(np.float32)
    obsm = {"X_pca": features[:, :2], "X_projections": features[:, :3]}
    write_anndata(build_anndata(features, observation_table(table), obsm), folder / "cells.zarr")
    states = np.where(table["track_id"] == 1, "one", "two")
    table.drop(columns="condition").assign(state=states).to_csv(folder / "labels.csv", index=False)


def _write_tracks(folder: Path) -> None:
    """Write one population as other programs do."""
    table = lineage_table()
    write_trackmate_csv(folder / "spots.csv", table)
    write_trackmate_xml(folder / "tracks.xml", table)
    write_btrack_csv(folder / "btrack.csv", table)
    write_btrack_hdf5(folder / "btrack.h5", table)
    write_ctc(folder / "TRA", table)
    write_napari(table, folder / "napari.npz")
    write_geff(table, folder / "tracks.geff")


def _write_images(folder: Path) -> None:
    """Write 2 frames of 2 channels as two programs do, and a lone stack."""
    pixels = np.random.default_rng(0).integers(0, 200, (2, 2, 1, 8, 9)).astype(np.uint16)
    channels = {"Channel": {"Name": ["Phase", "GFP"]}, "PhysicalSizeX": 0.65, "PhysicalSizeXUnit": "um"}
    tifffile.imwrite(folder / "ome.tif", pixels, metadata={"axes": "TCZYX", **channels})
    axes = {"axes": "TZCYX", "spacing": 2.0, "unit": "um", "finterval": 600.0}
    tifffile.imwrite(folder / "imagej.tif", pixels.transpose(0, 2, 1, 3, 4), imagej=True, metadata=axes)
    tifffile.imwrite(folder / "plane.tif", pixels[0, 0])
