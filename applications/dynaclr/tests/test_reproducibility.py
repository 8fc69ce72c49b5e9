"""Real training runs: equal losses for equal seeds, whatever reads the data and wherever a run was interrupted."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import nn

from dynaclr.datamodule import MultiExperimentDataModule
from dynaclr.engine import ContrastiveModule
from dynaclr.loss import NTXentHCL
from viscy_transforms import BatchedRandFlipd, BatchedRandGaussianNoised, BatchedRandScaleIntensityd, NormalizeSampled

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",  # advice for real runs
    "ignore:Checkpoint directory .* exists and is not empty",
)


class TinyEncoder(nn.Module):
    """Linear features and projections of (B, 2, 2, 6, 8)."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(2 * 2 * 6 * 8, 8), nn.GELU())
        self.projection = nn.Linear(8, 4)

    def forward(self, x):
        features = self.features(x)
        return features, self.projection(features)


class Losses(Callback):
    """Keeps the loss of every step, and saves a checkpoint after one of them."""

    def __init__(self, save_after=None, path=None):
        self.train, self.save_after, self.path = [], save_after, path
        self.val = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.train.append(outputs["loss"].item())
        if trainer.global_step == self.save_after:
            trainer.save_checkpoint(self.path)

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.val.append(trainer.callback_metrics["loss/val"].item())


@pytest.fixture
def experiments(encoded_experiments):
    return encoded_experiments(statistics=("first", "second"))


def run(
    experiments, *, seed=0, num_workers=0, max_epochs=2, recorder=None, ckpt_path=None, schedule="Constant", **options
):
    keys = ["ch_0", "ch_1"]
    data = MultiExperimentDataModule(
        str(experiments.yaml),
        z_range=(1, 3),
        yx_patch_size=(8, 12),
        final_yx_patch_size=(6, 8),
        val_experiments=["second"],
        batch_size=5,
        num_workers=num_workers,
        seed=seed,
        normalizations=[NormalizeSampled(keys, "fov_statistics")],
        augmentations=[
            BatchedRandFlipd(keys, spatial_axes=[1, 2]),
            BatchedRandScaleIntensityd(keys, prob=0.5, factors=0.5),
            BatchedRandGaussianNoised(keys, prob=0.5, std=10.0),
        ],
    )
    seed_everything(1)  # the weights
    model = ContrastiveModule(
        TinyEncoder(),
        NTXentHCL(temperature=0.5),
        lr=1e-2,
        schedule=schedule,
        warmup_epochs=1,
        example_input_array_shape=(1, 2, 2, 6, 8),
    )
    recorder = Losses() if recorder is None else recorder
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[recorder],
        **options,
    )
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return recorder


def test_equal_seeds_give_equal_losses_and_other_seeds_do_not(experiments):
    first, again, other = run(experiments), run(experiments), run(experiments, seed=1)
    assert first.train == again.train
    assert first.val == again.val
    assert first.train != other.train


def test_a_new_epoch_brings_new_losses_under_frozen_weights(experiments):
    class Frozen(Losses):
        def on_train_start(self, trainer, pl_module):
            trainer.optimizers[0].param_groups[0]["lr"] = 0.0

    recorder = run(experiments, recorder=Frozen(), max_epochs=2)
    half = len(recorder.train) // 2
    assert recorder.train[:half] != recorder.train[half:]
    assert len(set(recorder.val)) == 1  # validation pairs are fixed; without augmentation


def test_drawing_from_the_global_generator_elsewhere_changes_nothing(experiments):
    class Noise(Losses):
        def on_train_batch_start(self, *args):
            torch.rand(3)

    assert run(experiments, max_epochs=1).train == run(experiments, max_epochs=1, recorder=Noise()).train


@pytest.mark.parametrize(
    ("num_workers", "save_after"), [(0, 1), (0, 3), (0, 5), pytest.param(2, 3, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("schedule", ["Constant", "WarmupCosine"])
def test_a_run_resumed_in_mid_epoch_goes_on_with_the_same_losses(
    experiments, tmp_path, save_after, schedule, num_workers
):
    options = {"schedule": schedule, "num_workers": num_workers}
    whole = run(experiments, recorder=Losses(save_after, tmp_path / "mid.ckpt"), **options)
    rest = run(experiments, ckpt_path=tmp_path / "mid.ckpt", **options)
    assert rest.train == whole.train[save_after:]


@pytest.mark.slow
def test_losses_are_the_same_for_any_number_of_workers(experiments):
    options = {"max_epochs": 1, "limit_val_batches": 0, "limit_train_batches": 4}
    assert run(experiments, num_workers=2, **options).train == run(experiments, **options).train
