"""The shipped example configs run as shipped on a small plate, in this process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cytoland.cli import cli
from viscy_data import read_plate

CONFIGS = Path(__file__).parents[1] / "examples" / "configs"

# Smaller in every direction, and nothing else changed.
SMALLER = {384: 64, 15: 5}
SMALL_NETWORK = {"encoder_blocks": [1, 1], "dims": [16, 32]}
TRAINER = ["--trainer.accelerator=cpu", "--trainer.devices=1"]
TRAINING = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:GPU available", "ignore:.*litlogger", "ignore:The number of training batches",
        "ignore:.*does not have many workers", "ignore:a warm-up of 3 epochs",
        "ignore:'pin_memory' argument is set as true",
    ),
]  # fmt: skip


def smaller(content):
    if isinstance(content, dict):
        made = {key: smaller(value) for key, value in content.items()}
        if "num_workers" in made:
            made |= {"num_workers": 0, "batch_size": 4}
        if "backbone" in made:
            made["backbone"] = "convnextv2_atto"
        if "ms_dssim_alpha" in made:  # of larger patches
            made |= {"l1_alpha": 1.0, "ms_dssim_alpha": 0.0}
        return made | (SMALL_NETWORK if "pretraining" in made else {})
    if isinstance(content, list):
        return [smaller(value) for value in content]
    return SMALLER.get(content, content) if type(content) is int else content


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_plate):
    """Copy the configs, and write the plate that they name."""
    folder = tmp_path_factory.mktemp("configs")
    shutil.copytree(CONFIGS, folder, dirs_exist_ok=True)
    (folder / "data").mkdir()
    write_plate(folder / "data" / "plate.zarr")
    for path in folder.glob("*.yml"):
        path.write_text(yaml.safe_dump(smaller(yaml.safe_load(path.read_text()))))
    return folder


def run(*arguments):
    done = CliRunner().invoke(cli, [*arguments, *TRAINER], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_example_trains_and_predicts(folder, monkeypatch):
    monkeypatch.chdir(folder)
    run("fit", "--config", "fit.yml", *TRAINING, "--run", "plain")
    assert (folder / "runs" / "plain" / "checkpoints" / "reconstructions_best.png").exists()
    run("predict", "--config", "fit.yml", "--config", "predict.yml")
    [fov] = read_plate(folder / "prediction.zarr")
    assert (fov.name, fov.shape[1]) == ("B/1/0", 2)
    assert "test_metrics/ssim/Membrane" in run("test", "--config", "fit.yml", "--config", "predict.yml")


def test_example_pre_trains_and_fine_tunes(folder, monkeypatch):
    monkeypatch.chdir(folder)
    scratch = "--data.init_args.scratch_dir=scratch"
    run("fit", "--config", "fcmae_pretrain.yml", *TRAINING, scratch, "--run", "pretrained")
    run("fit", "--config", "fit.yml", "--config", "fcmae_finetune.yml", *TRAINING, "--run", "finetuned")
    assert (folder / "runs" / "finetuned" / "checkpoints" / "best.ckpt").exists()
