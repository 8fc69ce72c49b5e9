"""A pretrained encoder that is not trained: its predictions, and a projection trained on its features."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn

from dynaclr import FoundationModule, MultiExperimentDataModule, NTXentHCL
from viscy_data.errors import InputError
from viscy_models.foundation import PretrainedEncoder, TimmEncoder
from viscy_transforms import BatchedRandFlipd

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),  # it is frozen
]
SHAPE = (2, 2, 2, 6, 8)


class Backbone(nn.Module):
    """Four numbers of an image; says how many images it saw in training steps."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(64, 4), 0

    def forward(self, images):
        self.seen += len(images)
        return self.linear(images.flatten(2))


class Tiny(PretrainedEncoder):
    def __init__(self, **options):
        torch.manual_seed(0)
        super().__init__(Backbone(), 4, 8, in_channels=2, **options)

    def channel_features(self, images):
        return self.backbone(images)


def data(experiments, **options):
    settings = {"z_range": (1, 3), "yx_patch_size": (8, 12), "final_yx_patch_size": (6, 8), "batch_size": 6}
    settings |= {
        "num_workers": 0,
        "channel_dropout_channels": [],
        "val_experiments": ["second"],
        "tau_range": (0.5, 1.0),
    }
    return MultiExperimentDataModule(str(experiments.yaml), **settings | options)


def trained(experiments, **options):
    """Train for three epochs, and return the module, its data and the epochs' losses."""
    seed_everything(0)
    module = FoundationModule(Tiny(projection_dim=3), 0.1, NTXentHCL(temperature=0.5), example_input_array_shape=SHAPE,
                              log_batches_per_epoch=0, **options)  # fmt: skip
    module.watched = []
    module.on_train_batch_end = lambda outputs, batch, number: module.watched.append(outputs["loss"].item())
    source = data(experiments)
    trainer = Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(module, source)
    return module, source


def test_kept_features_train_as_computed_ones_and_each_cell_is_encoded_once(encoded_experiments):
    experiments = encoded_experiments()
    kept, source = trained(experiments, cache_features=True)
    computed, _ = trained(experiments)
    torch.testing.assert_close(kept.watched, computed.watched, rtol=1e-5, atol=1e-6)
    assert kept.watched[-1] != kept.watched[0]
    torch.testing.assert_close(kept.state_dict(), computed.state_dict(), rtol=1e-4, atol=1e-5)
    cells = len(source.train_dataset.index.tracks) + len(source.val_dataset.index.tracks)
    assert kept.model.backbone.seen <= cells < computed.model.backbone.seen


def test_only_the_projection_of_a_frozen_encoder_changes(encoded_experiments):
    module, _ = trained(encoded_experiments(), cache_features=True)
    fresh = Tiny(projection_dim=3).state_dict()
    changed = {name for name, value in module.model.state_dict().items() if not torch.equal(value, fresh[name])}
    assert {name.split(".")[0] for name in changed} == {"projection"}


def test_cells_are_embedded_by_a_model_of_timm(encoded_experiments):
    options = {"pretrained": False, "in_channels": 2, "img_size": 16}
    encoder = TimmEncoder("vit_tiny_patch16_224", model_options={"depth": 1}, **options)
    module = FoundationModule(encoder, example_input_array_shape=SHAPE).eval()
    source = data(encoded_experiments())
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    found = trainer.predict(module, source)
    normalised = torch.cat(
        [source.on_after_batch_transfer(batch, 0)["anchor"] for batch in source.predict_dataloader()]
    )
    assert len(normalised) == len(source.predict_dataset) > 0
    torch.testing.assert_close(torch.cat([batch["features"] for batch in found]), encoder(normalised)[0].detach())


def test_what_cannot_be_trained_or_kept_is_refused(encoded_experiments):
    experiments = encoded_experiments()
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "max_epochs": 1}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    with pytest.raises(InputError, match=r"a frozen encoder without a projection\n.*projection_dim, or freeze: false"):
        Trainer(**quiet).fit(
            FoundationModule(Tiny(), 0.1, NTXentHCL(), example_input_array_shape=SHAPE), data(experiments)
        )
    with pytest.raises(InputError, match=r"cache_features\n.*freeze: false"):
        FoundationModule(Tiny(freeze=False), cache_features=True)
    module = FoundationModule(
        Tiny(projection_dim=3), 0.1, NTXentHCL(), example_input_array_shape=SHAPE, cache_features=True
    )
    flipped = data(experiments, augmentations=[BatchedRandFlipd(["ch_0", "ch_1"], prob=0.5)])
    with pytest.raises(InputError, match=r"BatchedRandFlipd\n.*no augmentations"):
        Trainer(**quiet).fit(module, flipped)
    with pytest.raises(InputError, match="channel dropout"):
        Trainer(**quiet).fit(module, data(experiments, channel_dropout_channels=[1]))
