"""What predicting cells costs and holds, by their number, and what of it is writing embeddings.

    python benchmarks/prediction.py [--quick]

A tiny encoder (one convolution, 64 features) embeds all cells of synthetic tables through `MultiExperimentDataModule`
and `EmbeddingWriter`: patches of 2 x 1 x 96 x 96 from planes of 128 x 128 with noise, or of 32 x 32 from images that
are empty, where nothing but the writing costs much. "writing" is the share of wall and CPU time of the process spent in
the writer: parts while it predicts, and merging them at the end. Memory is the highest resident size above that before
the prediction, while cells are predicted and while parts are merged; the pool of decoded chunks may have 64 MiB of it.
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


def measure(n_cells: int, noise: bool) -> None:
    extent, size = (128, 96) if noise else (64, 32)
    with tempfile.TemporaryDirectory() as folder:
        per_fov = n_cells // 32 if noise else min(2500, n_cells // 32)
        write_track_tables(n_cells, folder, observations_per_fov=per_fov, yx_shape=(extent, extent), noise=noise)
        data = MultiExperimentDataModule(
            str(Path(folder, "experiments.yml")),
            (0, 1),
            (size, size),
            (size, size),
            batch_size=512,
            num_workers=0,
            cache_pool_bytes=64 << 20,
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
        f"{'noise' if noise else 'empty':<7}{n_cells:>9,}{1e6 * cpu / n_cells:>12.0f} us"
        f"{writer.wall / wall:>9.1%}{writer.cpu / cpu:>8.1%}"
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
    print(f"{'images':<7}{'cells':>9}{'CPU per cell':>15}{'writing':>9}{'CPU':>8}{'predicting':>14}{'merging':>12}")
    for noise in (False, True):
        for n_cells in (2_000, 8_000) if quick else (20_000, 80_000, 200_000):
            measure(n_cells, noise)


if __name__ == "__main__":
    main()
