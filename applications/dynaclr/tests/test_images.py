"""Experiments of images that are in no plate: from `dynaclr init` to batches, as if they were in one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner

from dynaclr import MultiExperimentDataModule
from dynaclr.commands.init import init
from dynaclr.experiment import ExperimentConfig, ExperimentRegistry
from viscy_data.errors import InputError
from viscy_data.stores import PlateWriter
from viscy_data.testing import served, write_foreign_image, write_foreign_series
from viscy_data.tracks import write_tracks
from viscy_utils.statistics.metadata import generate_normalization_metadata

CHANNELS, SHAPE = ["Phase", "GFP"], (8, 2, 1, 96, 96)


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, SHAPE).astype(np.uint16)


def cells() -> pd.DataFrame:
    grid = np.arange(16.0, 96, 20)
    rows = [(k, t, y, x) for k, (y, x) in enumerate((y, x) for y in grid for x in grid) for t in range(8)]
    return pd.DataFrame(rows, columns=["track_id", "t", "y", "x"]).assign(id=range(len(rows)), parent_track_id=-1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same two FOVs as a plate, as images, and as a series; with tracks of each layout."""
    folder = tmp_path_factory.mktemp("movies")
    with PlateWriter(folder / "plate/p.zarr", CHANNELS) as plate:
        for seed, name in enumerate(["A/1/0", "B/1/0"]):
            plate.write(name, pixels(seed))
    options = {"channel_names": CHANNELS, "chunks": (1, 1, 1, 48, 48), "array_key": "s0"}
    for seed, name in enumerate(["one", "two"]):
        write_foreign_image(folder / f"images/{name}.ome.zarr", pixels(seed), **options)
    write_foreign_series(folder / "series/s.zarr", {"0": pixels(0), "1": pixels(1)}, listed=False, **options)
    names = {"plate": ["A/1/0", "B/1/0"], "images": ["one", "two.ome.zarr"], "series": ["0", "1"]}
    for layout, fovs in names.items():
        for fov in fovs:
            write_tracks(cells(), folder / layout / "tracks" / fov / "tracks.csv")
    generate_normalization_metadata(folder / "plate/p.zarr", grid_spacing=4)
    generate_normalization_metadata(str(folder / "images/*.zarr"), grid_spacing=4)
    generate_normalization_metadata(folder / "series/s.zarr", grid_spacing=4)
    return folder


def experiment(data_path, tracks_path, wells) -> ExperimentConfig:
    return ExperimentConfig("e", data_path, str(tracks_path), CHANNELS, CHANNELS, wells)


def batches(config: ExperimentConfig, tmp_path) -> list[dict]:
    path = tmp_path / "experiments.yml"
    path.write_text(yaml.safe_dump({"experiments": [dataclasses.asdict(config)]}))
    options = {"z_range": (0, 1), "yx_patch_size": (32, 32), "final_yx_patch_size": (32, 32), "tau_range": (0.5, 1.0)}
    options |= {"batch_size": 8, "experiment_aware": False, "num_workers": 0}
    data = MultiExperimentDataModule(str(path), **options)
    data.setup("fit")
    return list(data.train_dataloader())


def test_images_train_as_the_fovs_of_a_plate_do(folder, tmp_path):
    wells = {"mock": ["A/1"], "infected": ["B/1"]}
    expected = batches(experiment(str(folder / "plate/p.zarr"), folder / "plate/tracks", wells), tmp_path)
    for data_path, layout, names in (
        (str(folder / "images/*.zarr"), "images", ["one.ome.zarr", "two.ome.zarr"]),
        (
            [str(folder / f"images/{name}.ome.zarr") for name in ("one", "two")],
            "images",
            ["one.ome.zarr", "two.ome.zarr"],
        ),
        (str(folder / "series/s.zarr"), "series", ["0", "1"]),
    ):
        wells = {"mock": names[:1], "infected": names[1:]}
        found = batches(experiment(data_path, folder / layout / "tracks", wells), tmp_path)
        assert len(found) == len(expected) > 3
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours["anchor"], theirs["anchor"])
            assert torch.equal(ours["positive"], theirs["positive"])
            norm_meta = [batch["anchor_norm_meta"] for batch in (ours, theirs)]
            assert str(norm_meta[0]) == str(norm_meta[1]) != "{}"


def test_images_on_a_server_train_as_those_on_disk(folder, tmp_path):
    wells = {"mock": ["one.ome.zarr"], "infected": ["two.ome.zarr"]}
    expected = batches(experiment(str(folder / "images/*.zarr"), folder / "images/tracks", wells), tmp_path)
    with served(folder) as url:
        urls = [f"{url}/images/{name}.ome.zarr" for name in ("one", "two")]
        found = batches(experiment(urls, folder / "images/tracks", wells), tmp_path)
    assert torch.equal(found[0]["anchor"], expected[0]["anchor"])
    assert str(found[0]["anchor_norm_meta"]) == str(expected[0]["anchor_norm_meta"])


def test_init_proposes_an_experiment_for_a_pattern(folder, tmp_path):
    arguments = [str(folder / "images/*.zarr"), "--interval-minutes", "30", "-o", str(tmp_path)]
    done = CliRunner().invoke(init, arguments)
    assert done.exit_code == 0, done.output
    registry = ExperimentRegistry.from_yaml(tmp_path / "experiments.yml")
    assert registry.names == ["images"]
    assert [fov.name for fov in registry.fovs["images"]] == ["one.ome.zarr", "two.ome.zarr"]


def test_relative_paths_of_a_list_are_seen_from_the_file(folder):
    entry = dataclasses.asdict(experiment(["images/one.ome.zarr", "images/t*.zarr"], "images/tracks", None))
    (folder / "experiments.yml").write_text(yaml.safe_dump({"experiments": [entry]}))
    registry = ExperimentRegistry.from_yaml(folder / "experiments.yml")
    assert [fov.name for fov in registry.fovs["e"]] == ["one.ome.zarr", "two.ome.zarr"]
    entry["data_path"] = ["images/one.ome.zarr", 3]
    (folder / "experiments.yml").write_text(yaml.safe_dump({"experiments": [entry]}))
    with pytest.raises(InputError, match="a path, or a list of paths"):
        ExperimentRegistry.from_yaml(folder / "experiments.yml")
