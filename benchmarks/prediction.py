"""What predicting cells costs and holds, by their number, and what of it is writing embeddings.

    python benchmarks/prediction.py [--quick]

A tiny encoder (one convolution, 64 features) embeds all cells of synthetic tables whose images are empty, through
`MultiExperimentDataModule` and `EmbeddingWriter`. "writing" is the share of wall and CPU time of the process spent in
the writer: parts while it predicts, and merging them at the end. Memory is the highest resident size above that before
the prediction, while cells are predicted and while parts are merged, per cell too.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from dynaclr.datamodule import MultiExperimentDataModule
from dynaclr.engine import ContrastiveModule
from viscy_data.synthetic.benchmark_tables import write_track_tables
from viscy_utils.callbacks import EmbeddingWriter


class TinyEncoder(nn.Module):
    """One convolution, its mean, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(2, 64, 4, 4), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, 2, 1, Y, X)."""
        features = self.body(x[:, :, 0]).relu().mean((2, 3))
        return features, self.head(features)


def resident(which: str) -> float:
    """Return a line of Linux's account of this process, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1e3


class TimedWriter(EmbeddingWriter):
    """Adds up what its hooks take, and looks at the memory before the merge."""

    wall = cpu = before_merge = 0.0

    def _timed(self, hook: object, *arguments: object) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        hook(*arguments)
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu

    def on_predict_batch_end(self, *arguments: object) -> None:
        """Keep the rows of a batch."""
        self._timed(super().on_predict_batch_end, *arguments)

    def teardown(self, trainer: Trainer, pl_module: ContrastiveModule, stage: str) -> None:
        """Merge."""
        self.before_merge = resident("VmHWM")
        self._timed(super().teardown, trainer, pl_module, stage)


def measure(n_cells: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_track_tables(n_cells, folder, observations_per_fov=min(2500, n_cells // 32))
        data = MultiExperimentDataModule(
            str(Path(folder, "experiments.yml")), (0, 1), (32, 32), (32, 32), batch_size=512, num_workers=0
        )
        writer = TimedWriter(Path(folder, "embeddings.zarr"))
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(accelerator="cpu", callbacks=[writer], default_root_dir=folder, **quiet)
        data.setup("predict")
        Path("/proc/self/clear_refs").write_text("5")  # begin the account of the peak anew
        before, wall, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
        trainer.predict(ContrastiveModule(TinyEncoder()), data, return_predictions=False)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        predicting, merging = writer.before_merge - before, resident("VmHWM") - before
    print(
        f"{n_cells:>9,}{1e6 * cpu / n_cells:>12.0f} us{writer.wall / wall:>9.1%}{writer.cpu / cpu:>8.1%}"
        f"{predicting:>11.0f} MB{merging:>9.0f} MB{1e6 * merging / n_cells:>9.0f} B/cell"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cells")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    for logger in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "dynaclr", "viscy_utils"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    print(f"{'cells':>9}{'CPU per cell':>15}{'writing':>9}{'CPU':>8}{'predicting':>14}{'merging':>12}")
    for n_cells in (2_000, 8_000) if quick else (20_000, 80_000, 200_000):
        measure(n_cells)


if __name__ == "__main__":
    main()
