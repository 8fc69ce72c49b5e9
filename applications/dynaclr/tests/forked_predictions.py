"""A prediction without the command line, whose parsing would take longer; called in forked processes."""

from __future__ import annotations

import os

import torch
from lightning.pytorch import Trainer

from dynaclr.adaptation import BatchStatistics
from dynaclr.datamodule import MultiExperimentDataModule
from dynaclr.engine import ContrastiveModule
from viscy_utils.callbacks import EmbeddingWriter


class Encoder(torch.nn.Module):
    def __init__(self, by_statistics: bool):
        super().__init__()
        self.num_features = 6
        self.features, self.projection = torch.nn.Linear(2 * 16 * 16, 6), torch.nn.Linear(6, 3)
        self.norm = torch.nn.BatchNorm1d(6) if by_statistics else torch.nn.Identity()

    def forward(self, x):
        features = self.norm(self.features(x.flatten(1)))
        return features, self.projection(features)


def predict(experiments_yaml: str, output: str, statistics_of: int | None = None) -> None:
    """Predict; with ``statistics_of`` by statistics of so many cells of each experiment."""
    torch.manual_seed(0)
    statistics = None if statistics_of is None else BatchStatistics(statistics_of)
    model = ContrastiveModule(Encoder(statistics is not None), batch_statistics=statistics)
    options = {"z_range": (0, 1), "yx_patch_size": (16, 16), "final_yx_patch_size": (16, 16), "batch_size": 5}
    data = MultiExperimentDataModule(experiments_yaml, num_workers=0, **options)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    parallel = {"devices": ranks, "strategy": "ddp"} if ranks > 1 else {}
    trainer = Trainer(**quiet, **parallel, callbacks=[EmbeddingWriter(output, part_rows=8)])
    trainer.predict(model, data, return_predictions=False)
