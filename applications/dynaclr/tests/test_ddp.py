"""Training with two processes: of one machine by Lightning's default settings, of two by the script of the examples."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

TORCHRUN = Path(__file__).parents[1] / "examples" / "slurm" / "torchrun.sh"
pytest_plugins = ["viscy_data.testing.fixtures"]

RECORDER = '''
import json
import os

import torch
from lightning.pytorch import Callback


class Recorder(Callback):
    """Write down which batches a rank has seen, what its weights were at the end, and whether the average followed."""

    def on_train_start(self, trainer, module):
        self.rows = []
        self.slow = [] if module.average is None else [p.detach().clone() for p in module.average.parameters()]

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        pairs = zip(self.slow, module.model.parameters(), strict=False)
        self.slow = [0.75 * average + 0.25 * weight.detach() for average, weight in pairs]

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.rows.append([trainer.current_epoch, batch["lineage"].tolist(), float(batch["anchor"].sum())])

    def on_train_end(self, trainer, module):
        weights = torch.nn.utils.parameters_to_vector(module.parameters()).double().sum().item()
        with open(f"rank{trainer.global_rank}.json", "w") as file:
            pairs = zip(self.slow, module.average.parameters(), strict=True) if self.slow else []
            drift = max([float((slow - average).abs().max()) for slow, average in pairs], default=None)
            json.dump({"rows": self.rows, "weights": weights, "world": trainer.world_size, "drift": drift}, file)
'''


LOSSES = {
    "NT-Xent": (
        {"class_path": "dynaclr.loss.NTXentHCL", "init_args": {"temperature": 0.2, "gather_distributed": True}},
        None,
    ),
    "MoCo": ({"class_path": "viscy_losses.MoCoLoss", "init_args": {"queue_size": 32, "dim": 8}}, 0.75),
}


def _config(experiments_yaml: Path, held_out: str, loss: str) -> dict:
    return {
        "seed_everything": 1,
        "data": {
            "class_path": "dynaclr.datamodule.MultiExperimentDataModule",
            "init_args": {
                "experiments_yaml": str(experiments_yaml),
                "val_experiments": [held_out],
                "z_range": [0, 1],
                "yx_patch_size": [24, 24],
                "final_yx_patch_size": [16, 16],
                "batch_size": 8,
                "num_workers": 0,
                "channel_dropout_channels": [1],
            },
        },
        "model": {
            "class_path": "dynaclr.engine.ContrastiveModule",
            "init_args": {
                "encoder": {
                    "class_path": "viscy_models.contrastive.ContrastiveEncoder",
                    "init_args": {
                        "backbone": "convnext_atto",
                        "in_channels": 2,
                        "in_stack_depth": 1,
                        "stem_kernel_size": [1, 2, 2],
                        "stem_stride": [1, 2, 2],
                        "embedding_dim": 16,
                        "projection_dim": 8,
                    },
                },
                "loss_function": LOSSES[loss][0],
                "momentum": LOSSES[loss][1],
                "example_input_array_shape": [1, 2, 1, 16, 16],
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 2,
            "strategy": "ddp",
            "max_epochs": 2,
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [
                {"class_path": "recorder.Recorder"},
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"dirpath": "checkpoints", "save_last": True},
                },
            ],
        },
    }


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "nodes"), [("NT-Xent", 1), ("MoCo", 2)], ids=["one machine", "two machines"])
def test_two_processes_share_the_batches(synthetic_experiments, tmp_path, loss, nodes):
    experiments_yaml = synthetic_experiments(3).yaml
    names = [entry["name"] for entry in yaml.safe_load(experiments_yaml.read_text())["experiments"]]
    (tmp_path / "recorder.py").write_text(RECORDER)
    (tmp_path / "fit.yml").write_text(yaml.safe_dump(_config(experiments_yaml, names[-1], loss)))
    dynaclr = Path(sys.executable).with_name("dynaclr")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if nodes == 1:
        commands = [[str(dynaclr), "fit", "--config", "fit.yml"]]
    else:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            meeting = f"localhost:{free.getsockname()[1]}"
        environment["PATH"] = os.pathsep.join([str(dynaclr.parent), environment["PATH"]])
        commands = [[str(TORCHRUN), "2", "1", meeting, "fit.yml", "--run", "shared"]] * nodes
    running = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    errors = [process.communicate()[1] for process in running]
    assert not any(process.returncode for process in running), "\n".join(errors)

    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [rank["world"] for rank in ranks] == [2, 2]
    assert ranks[0]["weights"] == pytest.approx(ranks[1]["weights"], abs=1e-9)
    assert [rank["drift"] for rank in ranks] == (pytest.approx([0, 0], abs=1e-6) if loss == "MoCo" else [None, None])
    seen = [defaultdict(set), defaultdict(set)]
    for rank, record in enumerate(ranks):
        for epoch, lineage, total in record["rows"]:
            seen[rank][epoch].add((tuple(lineage), total))
    for epoch in (0, 1):
        # At most the last batch of an epoch is shared, when an odd number of batches is padded.
        assert len(seen[0][epoch]) == len(seen[1][epoch]) > 1
        assert len(seen[0][epoch] & seen[1][epoch]) <= 1
    assert not seen[0][0] & seen[0][1]
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
