"""Channels and depth of encoder and data are compared before anything is read that takes time."""

from __future__ import annotations

import pytest
from lightning.pytorch import Trainer

import dynaclr.datamodule.module
from dynaclr import MultiExperimentDataModule
from dynaclr.engine import ContrastiveModule
from dynaclr.loss import NTXentHCL
from viscy_data.errors import InputError
from viscy_models import ContrastiveEncoder

pytest_plugins = ["viscy_data.testing.fixtures"]


QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 1}


def _data(experiments):
    return MultiExperimentDataModule(
        str(experiments.yaml), (0, 1), (24, 24), (16, 16), val_experiments=[], batch_size=4, num_workers=0
    )


@pytest.mark.parametrize("stage", ["fit", "predict"])
@pytest.mark.parametrize(
    ("channels", "depth", "message"),
    [
        (1, 1, r"in_channels of the encoder\n  found    1, and 2 in the images by the source channels"),
        (2, 5, r"in_stack_depth of the encoder\n  found    5, and 1 in the images by z_range"),
    ],
)
def test_an_encoder_for_other_images_is_refused_before_the_index_is_made(
    synthetic_experiments, monkeypatch, tmp_path, channels, depth, message, stage
):
    def build(*args, **kwargs):
        raise AssertionError("the index was built")

    monkeypatch.setattr(dynaclr.datamodule.module, "MultiExperimentIndex", build)
    stem = (min(depth, 5), 4, 4)
    encoder = ContrastiveEncoder("convnext_atto", channels, depth, stem, stem, embedding_dim=8, projection_dim=4)
    trainer = Trainer(accelerator="cpu", **QUIET, default_root_dir=tmp_path)
    with pytest.raises(InputError, match=message):
        getattr(trainer, stage)(ContrastiveModule(encoder, NTXentHCL()), datamodule=_data(synthetic_experiments(2)))
