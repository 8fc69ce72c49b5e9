"""The command on real plates: train, go on, predict a plate, test, pre-train and fine-tune; and bad input."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from lightning.pytorch import Callback

from cytoland import FcmaeUNet, VSUNet
from cytoland.cli import cli
from viscy_data import HCSDataModule, read_plate
from viscy_data.stores import read_stack
from viscy_transforms import NormalizeSampled
from viscy_utils.evaluation.image_metrics import pearson, psnr

pytestmark = pytest.mark.filterwarnings(
    "ignore:GPU available", "ignore:.*litlogger", "ignore:The number of training batches",
    "ignore:.*does not have many workers", "ignore:Trying to infer the `batch_size`",
)  # fmt: skip

QUIET = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False}
HELD_OUT = "B/1/0"


def cytoland(*arguments):
    """Run the command in this process."""
    return CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)


def write(path, content):
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in an empty folder, with quiet logs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def normalization(keys):
    options = {"keys": keys, "level": "fov_statistics", "subtrahend": "mean", "divisor": "std"}
    return {"class_path": "viscy_transforms.NormalizeSampled", "init_args": options}


@pytest.fixture
def config(folder, plate, small_network):
    """Write a configuration of a small network that translates one channel into two."""
    channels = ["Phase3D", "Nuclei", "Membrane"]
    crop = {"keys": channels, "w_key": "Nuclei", "spatial_size": [5, 32, 32], "num_samples": 2}
    data = {
        "data_path": str(plate), "source_channel": "Phase3D", "target_channel": channels[1:], "z_window_size": 5,
        "exclude_fov_names": [HELD_OUT], "split_ratio": 0.7, "yx_patch_size": [32, 32], "batch_size": 2,
        "num_workers": 0, "normalizations": [normalization(channels)],
        "augmentations": [{"class_path": "viscy_transforms.RandWeightedCropd", "init_args": crop}],
    }  # fmt: skip
    model = {
        "architecture": "fcmae",
        "model_config": {"in_channels": 1, "out_channels": 2, **small_network},
        "lr": 0.01,
        "schedule": "WarmupCosine",
        "warmup_steps": 1,
    }
    return write(
        folder / "fit.yml",
        {
            "data": {"class_path": "viscy_data.hcs.HCSDataModule", "init_args": data},
            "model": {"class_path": "cytoland.engine.VSUNet", "init_args": model},
            "trainer": {
                **QUIET,
                "max_epochs": 2,
                "callbacks": [{"class_path": "viscy_utils.callbacks.CheckpointVisualization"}],
            },
        },
    )


@pytest.fixture
def held_out(folder):
    """Write what is changed to predict and test the FOV that was kept."""
    options = {"include_fov_names": [HELD_OUT], "exclude_fov_names": None}
    return write(
        folder / "held_out.yml", {"data": {"class_path": "viscy_data.hcs.HCSDataModule", "init_args": options}}
    )


def network_of(run, small_network):
    path = run / "checkpoints" / "best.ckpt"
    weights = torch.load(path, weights_only=True)["state_dict"]
    assert all(name.startswith("model.") for name in weights)
    module = VSUNet("fcmae", {"in_channels": 1, "out_channels": 2, **small_network})
    module.load_state_dict(weights)
    return module.eval()


def held_out_samples(plate):
    """Read and normalise the windows of the held-out FOV with the data module alone."""
    keys = ["Phase3D", "Nuclei", "Membrane"]
    normalize = [NormalizeSampled(keys, level="fov_statistics", subtrahend="mean", divisor="std")]
    data = HCSDataModule(
        plate,
        "Phase3D",
        ["Nuclei", "Membrane"],
        5,
        num_workers=0,
        include_fov_names=[HELD_OUT],
        normalizations=normalize,
    )
    data.setup("test")
    return [data.test_dataset[number] for number in range(len(data.test_dataset))]


def test_a_plate_is_predicted_with_what_was_trained(config, held_out, folder, plate, small_network):
    done = cytoland("fit", "--config", config, "--run", "first")
    assert done.exit_code == 0, done.stderr
    run = folder / "runs" / "first"
    assert done.stdout.splitlines()[-1] == "next: cytoland predict --config runs/first/config.yaml"
    assert (run / "checkpoints" / "reconstructions_best.png").stat().st_size > 0
    assert json.loads((run / "run.json").read_text())["status"] == "finished"

    done = cytoland("predict", "--config", config, "--config", held_out, "--run", "latest")
    assert done.exit_code == 0, done.stderr
    wrote, following = done.stdout.splitlines()[-2:]
    assert wrote == "wrote runs/first/prediction.zarr: Nuclei_prediction, Membrane_prediction in 1 FOVs"
    assert shlex.split(following)[:3] == ["next:", "cytoland", "test"]
    assert cytoland(*shlex.split(following)[2:]).exit_code == 0
    [fov] = read_plate(run / "prediction.zarr")
    assert (fov.name, fov.shape) == (HELD_OUT, (1, 2, 7, 64, 80))
    assert tuple(fov.channel_names) == ("Nuclei_prediction", "Membrane_prediction")
    assert tuple(fov.scale) == (1.0, 1.0, 0.5, 0.25, 0.25)
    module, samples = network_of(run, small_network), held_out_samples(plate)
    total, count = np.zeros((2, 7, 64, 80)), np.zeros((7, 1, 1))
    with torch.no_grad():
        for z, sample in enumerate(samples):
            total[:, z : z + 5] += module(sample["source"][None])[0].numpy()
            count[z : z + 5] += 1
    for channel in range(2):
        np.testing.assert_allclose(read_stack(fov, 0, channel), (total / count)[channel], rtol=1e-3, atol=1e-4)

    again = cytoland("predict", "--config", config, "--config", held_out, "--run", "latest")
    assert again.exit_code == 2
    assert "prediction.zarr" in again.stderr


def test_tests_measure_each_channel(config, held_out, folder, plate, small_network):
    short = ["--trainer.max_epochs=1", "--model.init_args.schedule=Constant"]
    assert cytoland("fit", "--config", config, *short, "--run", "first").exit_code == 0
    arguments = [
        "--config",
        config,
        "--config",
        held_out,
        "--run",
        "first",
        "--model.init_args.test_time_augmentations=true",
    ]
    done = cytoland("test", *arguments)
    assert done.exit_code == 0, done.stderr
    found = {row.split()[1]: float(row.split()[3]) for row in done.stdout.splitlines() if "test_metrics/" in row}
    module, samples = network_of(folder / "runs" / "first", small_network), held_out_samples(plate)
    expected = []
    with torch.no_grad():
        for sample in samples:
            turned = [module(torch.rot90(sample["source"][None], k, (3, 4))) for k in range(4)]
            mean = torch.stack([torch.rot90(image, -k, (3, 4)) for k, image in enumerate(turned)]).mean(0)
            pair = mean, sample["target"][None]
            expected.append(torch.stack([pearson(*pair)[0], psnr(*pair)[0]]))
    means = torch.stack(expected).mean(0)
    for channel, name in enumerate(["Nuclei", "Membrane"]):
        assert found[f"test_metrics/pearson/{name}"] == pytest.approx(means[0, channel].item(), abs=1e-3)
        assert found[f"test_metrics/psnr/{name}"] == pytest.approx(means[1, channel].item(), rel=1e-3)
        assert -1 <= found[f"test_metrics/ssim/{name}"] <= 1


class StopAfter(Callback):
    """Press Ctrl-C, as it were, after some steps."""

    def __init__(self, steps: int):
        self.steps = steps

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.steps:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(config, folder):
    def weights(name):
        return torch.load(folder / "runs" / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    assert cytoland("fit", "--config", config, "--run", "whole").exit_code == 0
    stop = write(
        folder / "stop.yml",
        {"trainer": {"callbacks": [{"class_path": f"{__name__}.StopAfter", "init_args": {"steps": 3}}]}},
    )
    stopped = cytoland("fit", "--config", config, "--config", stop, "--run", "stopped")
    assert stopped.exit_code == 130, stopped.stderr
    [advice] = [line for line in stopped.stderr.splitlines() if "Go on with: cytoland " in line]
    command = shlex.split(advice.partition("Go on with: cytoland ")[2])
    continued = cytoland(*command, "--trainer.callbacks=null")
    assert continued.exit_code == 0, continued.stderr
    whole, parts = weights("whole"), weights("stopped")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_pre_training_on_cached_frames_and_fine_tuning_from_it(config, folder, plate, small_network):
    stack = {"class_path": "viscy_transforms.StackChannelsd", "init_args": {"channel_map": {"source": ["Phase3D"]}}}
    roi = {"keys": ["Phase3D"], "roi_size": [5, 32, 32]}
    prepare = [normalization(["Phase3D"]), {"class_path": "viscy_transforms.RandSpatialCropd", "init_args": roi}]
    data = {
        "data_path": str(plate), "channels": "Phase3D", "batch_size": 2, "num_workers": 0, "split_ratio": 0.7,
        "exclude_fovs": [HELD_OUT], "pin_memory": False, "scratch_dir": str(folder / "scratch"),
        "train_cpu_transforms": prepare, "val_cpu_transforms": prepare,
        "train_gpu_transforms": [stack], "val_gpu_transforms": [stack],
    }  # fmt: skip
    network = {"in_channels": 1, "out_channels": 1, **small_network}
    pretrain = write(
        folder / "pretrain.yml",
        {
            "data": {"class_path": "viscy_data.gpu_aug.CachedOmeZarrDataModule", "init_args": data},
            "model": {
                "class_path": "cytoland.engine.FcmaeUNet",
                "init_args": {"fit_mask_ratio": 0.5, "model_config": network},
            },
            "trainer": {**QUIET, "max_epochs": 2},
        },
    )
    done = cytoland("fit", "--config", pretrain, "--run", "pretrained")
    assert done.exit_code == 0, done.stderr
    assert list((folder / "scratch").rglob("*"))
    best = folder / "runs" / "pretrained" / "checkpoints" / "best.ckpt"
    before = torch.load(best, weights_only=True)["state_dict"]

    options = {
        "ckpt_path": str(best), "encoder_only": True, "freeze_encoder": True,
        "model_config": {"in_channels": 1, "out_channels": 2, "pretraining": False, **small_network},
    }  # fmt: skip
    finetune = write(
        folder / "finetune.yml", {"model": {"class_path": "cytoland.engine.FcmaeUNet", "init_args": options}}
    )
    done = cytoland("fit", "--config", config, "--config", finetune, "--run", "finetuned")
    assert done.exit_code == 0, done.stderr
    after = torch.load(folder / "runs" / "finetuned" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    encoder = [name for name in after if name.startswith("model.encoder.")]
    assert encoder
    assert all(torch.equal(after[name], before[name]) for name in encoder)
    fresh = FcmaeUNet(model_config={**options["model_config"]}).state_dict()
    assert not all(torch.equal(after[name], fresh[name]) for name in encoder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--data.init_args.z_window_size=3"], "5, as in_stack_depth of the network has it"),
        (["--data.init_args.target_channel=[Nuclei,Membrane,Phase3D]"], "2, as out_channels of the network has it"),
        (["--data.init_args.target_2d=true"], "out_stack_depth"),
        (["--data.init_args.yx_patch_size=[36,32]"], "Y a multiple of 8"),
        (["--data.init_args.source_channel=Brightfield"], "Brightfield"),
        (["--model.init_args.architecture=FNet"], "architecture"),
        (["--model.init_args.lr_=1"], "lr_"),
        (["--model.init_args.ckpt_path=missing.ckpt"], "missing.ckpt"),
    ],
)
def test_what_does_not_fit_ends_with_2_and_a_paragraph(config, changes, message, folder):
    done = cytoland("fit", "--config", config, *changes)
    assert done.exit_code == 2
    assert done.stderr.startswith("cytoland: error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path(folder, "runs").glob("*"))


def test_predictions_need_weights(config, held_out):
    done = cytoland("predict", "--config", config, "--config", held_out)
    assert done.exit_code == 2
    assert "add --run latest, --run NAME or --ckpt_path FILE" in done.stderr


def test_own_and_shared_commands_are_listed():
    done = cytoland("--help")
    for name in ("fit", "predict", "test", "preprocess", "export", "demo"):
        assert name in done.output
