"""What of a training step is not forward, backward and optimiser: reading, transforms, logging, the trainer.

    python benchmarks/training.py [--quick]

`ContrastiveModule` and `MultiExperimentDataModule` as `dynaclr fit` uses them, on simulated movies in the page cache,
batches of pairs of cells, 2 x 5 x 96 x 96 each. After every few steps of the trainer as many bare ones are done with a
copy of the network and the loss on the last batch. "outside" is the share of the trainer's step that the bare one does
not have: of wall time, and of CPU time of the whole process, the reading thread included. With a CUDA device the same
runs there with bf16, and "busy" is the share of the step in which the device works as in a bare one.
"""

from __future__ import annotations

import argparse
import copy
import logging
import tempfile
import time
import warnings
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from dynaclr.datamodule import MultiExperimentDataModule
from dynaclr.engine import ContrastiveModule
from dynaclr.engine.contrastive.objective import Views, objective_of
from dynaclr.loss import NTXentHCL
from viscy_data.synthetic import ExperimentSpec, write_experiments
from viscy_models.contrastive import ContrastiveEncoder
from viscy_transforms import BatchedRandAffined, BatchedRandFlipd, BatchedRandGaussianNoised

KEYS = ["ch_0", "ch_1"]
SHAPE = (2, 5, 96, 96)


class SmallEncoder(nn.Module):
    """Four convolutions, 0.2 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        widths = (10, 24, 48, 96, 160)
        layers = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in pairwise(widths)]
        self.body, self.head = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(160, 32)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, C, Z, Y, X)."""
        features = self.body(x.flatten(1, 2))
        return features, self.head(features)


def encoder(name: str) -> nn.Module:
    if name == "small":
        return SmallEncoder()
    stem = {"stem_kernel_size": [5, 4, 4], "stem_stride": [5, 4, 4]}
    return ContrastiveEncoder(backbone=name, in_channels=2, in_stack_depth=5, projection_dim=32, **stem)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Beside(Callback):
    """After every ``n`` steps, do as many bare ones; keep the wall and CPU seconds of both, per step."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.seconds: dict[str, list[tuple[float, float]]] = {"trainer": [], "bare": []}

    def on_train_start(self, trainer: Trainer, pl_module: ContrastiveModule) -> None:
        """Copy the network."""
        self.network, self.loss = copy.deepcopy(pl_module.model), NTXentHCL()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
        self._begin(pl_module.device)

    def _begin(self, device: torch.device) -> None:
        wait(device)
        self.start = time.perf_counter(), time.process_time()

    def _end(self, name: str, device: torch.device) -> None:
        wait(device)
        wall, cpu = self.start
        self.seconds[name].append(((time.perf_counter() - wall) / self.n, (time.process_time() - cpu) / self.n))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: ContrastiveModule, outputs: object, batch: dict, batch_idx: int
    ) -> None:
        """Take the time of the last steps, and of as many bare ones."""
        if (batch_idx + 1) % self.n:
            return
        self._end("trainer", pl_module.device)
        self._begin(pl_module.device)
        for _ in range(self.n):
            with trainer.precision_plugin.forward_context():
                anchor, positive = (self.network(batch[role])[1] for role in ("anchor", "positive"))
                loss = objective_of(self.loss).compute(Views(anchor, positive))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self._end("bare", pl_module.device)
        self._begin(pl_module.device)

    def medians(self) -> dict[str, tuple[float, float]]:
        """Return median wall and CPU seconds of a step; the first round warms up."""
        return {name: tuple(median(column) for column in zip(*s[1:], strict=True)) for name, s in self.seconds.items()}


def data(folder: Path, batch_size: int, augmented: bool) -> MultiExperimentDataModule:
    chain = [
        BatchedRandAffined(KEYS, prob=0.8, rotate_range=[3.14, 0.0, 0.0], scale_range=[[1, 1], [0.8, 1.2], [0.8, 1.2]]),
        BatchedRandFlipd(KEYS, spatial_axes=[1, 2], prob=0.5),
        BatchedRandGaussianNoised(KEYS, prob=0.5, mean=0.0, std=0.2),
    ]
    return MultiExperimentDataModule(
        str(folder / "experiments.yml"), (0, SHAPE[1]), (128, 128), SHAPE[2:], tau_range=(0.5, 2.0),
        batch_size=batch_size, num_workers=0, augmentations=chain if augmented else [],
    )  # fmt: skip


def measure(folder: Path, name: str, batch_size: int, augmented: bool, n: int, n_rounds: int) -> None:
    beside = Beside(n)
    on_gpu = torch.cuda.is_available()
    trainer = Trainer(
        accelerator="gpu" if on_gpu else "cpu", devices=1, precision="bf16-mixed" if on_gpu else "32-true",
        max_steps=n * (n_rounds + 1), callbacks=[beside], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    module = ContrastiveModule(encoder(name), NTXentHCL(), example_input_array_shape=(1, *SHAPE))
    trainer.fit(module, data(folder, batch_size, augmented))
    (wall, cpu), (bare_wall, bare_cpu) = beside.medians()["trainer"], beside.medians()["bare"]
    busy = f"{bare_wall / wall:>7.0%}" if on_gpu else f"{'':>7}"
    print(
        f"{name:<14}{batch_size:>6}{'yes' if augmented else 'no':>11}{wall * 1e3:>9.0f} ms{bare_wall * 1e3:>7.0f} ms"
        f"{1 - bare_wall / wall:>9.1%}{1 - bare_cpu / cpu:>8.1%}{busy}{batch_size / wall:>9.0f}{150 * wall:>9.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small networks, few steps")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    for logger in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "dynaclr"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    on_gpu = torch.cuda.is_available()
    print(torch.cuda.get_device_name() if on_gpu else "no CUDA device: this is the CPU, and nothing is said of GPUs")
    n, n_rounds = (2, 1) if quick else (50, 4) if on_gpu else (2, 2)
    cases = [("convnext_atto" if quick else "convnext_tiny", 32 if on_gpu else 16), ("small", 128)]
    print(f"{'network':<14}{'batch':>6}{'augmented':>11}{'step':>12}{'bare':>10}", end="")
    print(f"{'outside':>9}{'CPU':>8}{'busy':>7}{'cells/s':>9}{'150 steps':>11}")
    with tempfile.TemporaryDirectory() as folder:
        wells = {"uninfected": ("A/1",), "infected": ("B/1",)}
        specs = [
            ExperimentSpec(f"e{k}", condition_wells=wells, n_frames=8, n_cells=40, shape=(SHAPE[1], 384, 384))
            for k in range(2)
        ]
        write_experiments(specs, folder, seed=0)
        for name, batch_size in cases:
            for augmented in (False, True):
                measure(Path(folder), name, batch_size, augmented, n, n_rounds)


if __name__ == "__main__":
    main()
