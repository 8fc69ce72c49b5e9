"""Faults in real runs: trainings and predictions of images that are killed go on as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from viscy_data import read_plate
from viscy_data.errors import InputError
from viscy_data.stores import read_stack
from viscy_utils.testing.commands import Commands

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks"),
]

CHANNELS = ["Phase3D", "Nuclei", "Membrane"]
PRELOADED = (
    "forked_plates",
    "monai.transforms",
    "timm",
    "cytoland.engine",
    "viscy_data.hcs",
    "viscy_transforms",
    "viscy_utils.cli.lightning_cli",
)
EVERY_STEP = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"every_n_train_steps": 1, "save_last": True, "save_top_k": -1, "monitor": None},
}
N_STEPS = 12


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    server = Commands("cytoland", tmp_path_factory.mktemp("reliability"), PRELOADED, Path(__file__).parent)
    yield server
    server.close()


def config_of(plate, network, callbacks):
    crop = {"keys": CHANNELS, "w_key": "Nuclei", "spatial_size": [5, 32, 32], "num_samples": 2}
    noise = {"keys": CHANNELS[:1], "prob": 0.5, "mean": 0.0, "std": 0.3}
    data = {
        "data_path": str(plate), "source_channel": "Phase3D", "target_channel": CHANNELS[1:], "z_window_size": 5,
        "split_ratio": 0.6, "yx_patch_size": [32, 32], "batch_size": 2, "num_workers": 0,
        "augmentations": [
            {"class_path": "viscy_transforms.RandWeightedCropd", "init_args": crop},
            {"class_path": "viscy_transforms.RandGaussianNoised", "init_args": noise},
        ],
    }  # fmt: skip
    model = {"architecture": "fcmae", "lr": 0.01, "schedule": "WarmupCosine", "warmup_steps": 1}
    model |= {"model_config": {"in_channels": 1, "out_channels": 2, **network}}
    quiet = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False}
    return {
        "seed_everything": 1,
        "data": {"class_path": "viscy_data.hcs.HCSDataModule", "init_args": data},
        "model": {"class_path": "cytoland.engine.VSUNet", "init_args": model},
        "trainer": {**quiet, "max_epochs": 2, "logger": False, "num_sanity_val_steps": 0, "callbacks": callbacks},
    }


def test_a_training_that_is_killed_in_mid_epoch_goes_on_to_the_last_bit(commands, plate, small_network):
    def fit(run, hook=None, after=0, kind=None):
        fault = {"steps": f"{run}.steps", "hook": hook, "after": after, "kind": kind}
        callbacks = [{"class_path": "viscy_utils.testing.faults.Fault", "init_args": fault}, EVERY_STEP]
        (commands.folder / f"{run}.yml").write_text(yaml.safe_dump(config_of(plate, small_network, callbacks)))
        return commands.codes("fit", "--config", f"{run}.yml", "--run", run, "--resume")

    def made(run):
        steps = [json.loads(line) for line in (commands.folder / f"{run}.steps.0").read_text().splitlines()]
        weights = commands.folder / "runs" / run / "checkpoints" / "last.ckpt"
        return steps, torch.load(weights, weights_only=True)

    assert fit("unbroken") == [0], commands.said()
    assert fit("broken", "on_before_optimizer_step", 2, "SIGKILL") == [-9], commands.said()
    assert fit("broken", "on_before_backward", 4, "SIGUSR1") == [138], commands.said()
    assert fit("broken", "on_before_zero_grad", 9, "SIGKILL") == [-9], commands.said()
    assert fit("broken") == [0], commands.said()
    (steps, last), (expected, unbroken) = made("broken"), made("unbroken")
    assert [step[:2] for step in expected] == [[epoch, batch] for epoch in range(2) for batch in range(N_STEPS // 2)]
    assert len({batch for _, _, batch, _ in expected}) == N_STEPS, "augmentation makes a new batch of each step"
    assert steps == expected, "no step is left out, made twice, or another one"
    torch.testing.assert_close(last["state_dict"], unbroken["state_dict"], rtol=0, atol=0)
    assert last["global_step"] == N_STEPS


def images_of(path):
    """Read all pixels of a plate."""
    return {
        fov.name: [read_stack(fov, t, c) for t in range(fov.shape[0]) for c in range(2)] for fov in read_plate(path)
    }


def assert_same_images(found, expected):
    found, expected = images_of(found), images_of(expected)
    assert found.keys() == expected.keys()
    for name, stacks in expected.items():
        np.testing.assert_array_equal(found[name], stacks)


def assert_whole_or_unreadable(path, expected):
    try:
        read_plate(path)
    except InputError:
        return
    assert_same_images(path, expected)


def test_a_prediction_that_is_killed_anywhere_gives_the_plate_of_an_unbroken_one(commands, write_plate):
    plate = write_plate(commands.folder / "images.zarr", fovs=("A/1/0", "A/2/0"), shape=(3, 7, 16, 24))

    def predict(output, kill_at):
        fault = {"kill_at": kill_at, "folder": f"{output.parent}/"}
        options = {"plate": str(plate), "output": str(output)}
        return commands.codes(call=("forked_plates", "predict"), options=options, faults=[fault])

    expected = commands.folder / "expected" / "p.zarr"
    assert predict(expected, 10**9) == [0], commands.said()
    n_writes = int((commands.folder / "expected.events").read_text())
    assert n_writes > 50
    stacks = images_of(expected)
    assert all(stack.any() for own in stacks.values() for stack in own)
    rng, n_killed, n_whole, output = random.Random(0), 0, 0, commands.folder / "killed" / "p.zarr"
    while n_killed < 10:
        # At first when it gets its name and what was beside it is removed, then anywhere: it goes on with fewer writes.
        [code] = predict(output, n_writes - 1 - 3 * n_killed if n_killed < 5 else rng.randrange(1, n_writes // 3))
        assert code in (0, -9), commands.said()
        n_killed += code == -9
        for path in (output, output.with_name("p.zarr.parts") / "plate.zarr"):
            assert_whole_or_unreadable(path, expected)
        if output.exists():
            shutil.rmtree(output.parent)
            n_whole += 1
    if not output.exists():
        assert predict(output, 10**9) == [0], commands.said()
        assert_same_images(output, expected)
    assert n_whole
    assert os.listdir(output.parent) == ["p.zarr"]
