"""A pretrained encoder that is not trained: its predictions, and a projection trained on its features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn

from dynaclr import FoundationModule, MultiExperimentDataModule, NTXentHCL
from dynaclr.adaptation import BatchStatistics, balanced_rows
from viscy_data.errors import InputError
from viscy_models.foundation import PretrainedEncoder, TimmEncoder
from viscy_transforms import BatchedRandFlipd

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),  # it is frozen
    pytest.mark.filterwarnings("ignore:.*some come several times"),  # there are few cells
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


class NormedBackbone(Backbone):
    """One with batch normalisation, whose running averages are those of photographs."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.norm.running_mean.fill_(0.5)
        self.norm.running_var.fill_(4.0)

    def forward(self, images):
        return self.norm(super().forward(images).transpose(1, 2)).transpose(1, 2)


class Normed(Tiny):
    def __init__(self, **options):
        super().__init__(**options)
        self.backbone = NormedBackbone().eval().requires_grad_(False)


QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
N_CELLS = 30  # of an experiment: 15 of each condition


def embedding(experiments, statistics=None, **options):
    """Embed with a frozen encoder and an untrained projection; the module, features, projections, experiments."""
    torch.manual_seed(1)
    module = FoundationModule(
        Normed(projection_dim=3), example_input_array_shape=SHAPE, batch_statistics=statistics, **options
    )
    source = data(experiments)
    batches = Trainer(**QUIET).predict(module, source)
    names = np.array([row["experiment"] for batch in batches for row in batch["index"]])
    return module, source, *(torch.cat([b[key] for b in batches]).numpy() for key in ("features", "projections")), names


def batch_normed(x, own, norm=None):
    """By mean and unbiased variance of `own`."""
    scaled = (x - own.mean(axis=0)) / np.sqrt(own.var(axis=0, ddof=1) + 1e-5)
    return scaled if norm is None else scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def linear(layer, x):
    return x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()


def test_kept_features_are_those_that_are_normalised_per_experiment(encoded_experiments):
    experiments = encoded_experiments()
    _, source, plain, _, names = embedding(experiments)
    module, _, features, projections, _ = embedding(experiments, BatchStatistics(N_CELLS))
    index, (first, norm, _, second, last) = source.predict_dataset.index, module.model.projection
    conditions = index.tracks["condition"].to_numpy().astype(str)
    stored = module.prediction_uns()["batch_statistics"]["layers"]
    assert set(stored) == {f"{layer}.running_{kind}" for kind in ("mean", "var") for layer in
                           ("features", "encoder.projection.1", "encoder.projection.4")}  # fmt: skip
    for row, name in enumerate(("first", "second")):
        rows = np.flatnonzero(names == name)
        x = plain[rows].astype(np.float64)
        own = x[balanced_rows(conditions[rows], N_CELLS, source.seed)]
        np.testing.assert_allclose(stored["features.running_mean"][row], own.mean(axis=0), rtol=1e-4)
        np.testing.assert_allclose(stored["features.running_var"][row], own.var(axis=0, ddof=1), rtol=1e-3)
        np.testing.assert_allclose(features[rows], batch_normed(x, own), rtol=1e-3, atol=1e-3)
        hidden, of_own = linear(first, x), linear(first, own)
        seen = (of_own - of_own.mean(axis=0)) / np.sqrt(of_own.var(axis=0) + 1e-5)  # as in training
        top, of_own_top = (linear(second, np.maximum(each, 0)) for each in (batch_normed(hidden, of_own, norm), seen))
        np.testing.assert_allclose(projections[rows], batch_normed(top, of_own_top, last), rtol=2e-3, atol=2e-3)


def test_a_turned_prediction_is_the_mean_over_turns_of_a_pretrained_encoder(encoded_experiments):
    experiments = encoded_experiments()
    module, source, features, *_ = embedding(experiments, predict_turned=True)
    batches = [source.on_after_batch_transfer(batch, 0)["anchor"] for batch in source.predict_dataloader()]
    images = torch.cat(batches)  # of 6 x 8 pixels: four turns
    views = [images, images.flip(-1), images.flip(-2), images.flip((-2, -1))]
    expected = torch.stack([module.model(view)[0] for view in views]).mean(dim=0)
    np.testing.assert_allclose(features, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert module.prediction_record() == {"predict_turned": True}


def test_validations_by_own_statistics_are_alike_with_kept_features(encoded_experiments):
    experiments = encoded_experiments()

    def validated(statistics, **options):
        torch.manual_seed(1)
        loss = NTXentHCL(temperature=0.5)
        options |= {"batch_statistics": statistics, "example_input_array_shape": SHAPE, "log_batches_per_epoch": 0}
        module, source = FoundationModule(Normed(projection_dim=3), 0.1, loss, **options), data(experiments)
        (found,) = Trainer(**QUIET).validate(module, source, verbose=False)
        return found["loss/val_epoch"], module.model.backbone.seen, len(source.val_dataset.index.tracks)

    plain, *_ = validated(None)
    computed, n_computed, n_cells = validated(BatchStatistics(16))
    kept, n_kept, _ = validated(BatchStatistics(16), cache_features=True)
    assert kept == pytest.approx(computed, rel=1e-5)
    assert computed != pytest.approx(plain, rel=1e-2)
    assert n_kept <= n_cells < n_computed
