"""`dynaclr cache-patches`, and a training and a prediction that read what it wrote."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from dynaclr.commands.cache_patches import cache_patches
from dynaclr.commands.info import info
from dynaclr.config import load_data_module
from viscy_data.patch_store import read_record

KEYS = ["ch_0", "ch_1"]


@pytest.fixture
def config(encoded_experiments, tmp_path):
    """Two experiments of other channels, statistics and frame intervals; cells at the border; a margin."""
    experiments = encoded_experiments(statistics=("first", "second"))
    normalise = {"keys": KEYS, "level": "fov_statistics", "subtrahend": "mean", "divisor": "std"}
    settings = {
        "experiments_yaml": str(experiments.yaml),
        "z_range": [1, 3],
        "yx_patch_size": [9, 12],
        "final_yx_patch_size": [6, 8],
        "val_experiments": ["second"],
        "batch_size": 4,
        "num_workers": 0,
        "return_negative": True,
        "normalizations": [{"class_path": "viscy_transforms.NormalizeSampled", "init_args": normalise}],
        "augmentations": [
            {"class_path": "viscy_transforms.BatchedRandFlipd", "init_args": {"keys": KEYS, "prob": 1.0}}
        ],
    }

    def make(name="fit.yml", **options):
        path = tmp_path / name
        data = {"class_path": "dynaclr.datamodule.MultiExperimentDataModule", "init_args": settings | options}
        path.write_text(yaml.safe_dump({"data": data}))
        return path

    return make


def run(*arguments):
    return CliRunner().invoke(cache_patches, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def batches(path):
    """Return the batches of every stage, before and after what happens to them on the device."""
    data = load_data_module([path])
    found = []
    for stage in ("fit", "predict"):
        data.setup(stage)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()):
        for batch in loader:
            found.append(dict(batch))
            augment = loader.dataset is data.train_dataset
            found.append(data.pipeline(data.on_before_batch_transfer(batch, 0), training=augment, augment=augment))
    return found


def equal(one, other):
    if isinstance(one, torch.Tensor | np.ndarray):
        return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_all_stages_see_the_same_batches(config, tmp_path):
    store = tmp_path / "patches.zarr"
    # The config may name the store that it is to become already.
    stored = config("stored.yml", patch_store=str(store))
    result = run("-c", stored, "-o", store, "--workers", "1")
    assert result.exit_code == 0, result.output
    record = read_record(store)
    assert f"{record.n_cells} cells of 2 x 2 x 9 x 12 {record.dtype}" in result.output
    assert result.output.endswith(f"next: dynaclr fit --config {stored} --data.init_args.patch_store {store}\n")
    plain, copied = batches(config()), batches(stored)
    assert len(plain) >= 6
    assert all(map(equal, plain, copied))
    # What is refused, is refused in words.
    for options, field in (
        ({"yx_patch_size": [10, 12]}, "yx_patch_size"),
        ({"z_range": [0, 3]}, "z_range"),
    ):
        data = load_data_module([config("other.yml", patch_store=str(store), **options)])
        with pytest.raises(ValueError, match=r"patches\.zarr") as caught:
            data.setup("fit")
        assert caught.value.field == field


def test_a_store_is_described_and_not_overwritten(config, tmp_path):
    store = tmp_path / "patches.zarr"
    assert run("-c", config(), "-o", store).exit_code == 0
    told = json.loads(CliRunner().invoke(info, [str(store), "--json"]).output)
    assert told["kind"] == "a patch store"
    assert told["next"] == [f"in the data block of the config: patch_store: {store}"]
    assert "Phase, GFP" in json.dumps(told)
    result = run("-c", config(), "-o", store)
    assert result.exit_code != 0
    assert f"{store} exists" in result.output


def test_other_data_modules_are_refused(tmp_path):
    path = tmp_path / "fit.yml"
    texts = dict.fromkeys(("pred_dataset", "target_dataset", "target_channel", "pred_channel"), "x")
    numbers = dict.fromkeys(("pred_z_slice", "target_z_slice", "num_workers"), 0)
    settings = texts | numbers | {"batch_size": 1}
    data = {"class_path": "viscy_data.SegmentationDataModule", "init_args": settings}
    path.write_text(yaml.safe_dump({"data": data}))
    result = run("-c", path, "-o", tmp_path / "patches.zarr")
    assert result.exit_code == 2
    assert "a data module of cells" in result.output
