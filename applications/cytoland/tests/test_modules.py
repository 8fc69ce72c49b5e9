"""Training modules: losses, weights, options."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from cytoland import FcmaeUNet, MaskedMSELoss, VSUNet
from viscy_data.errors import InputError
from viscy_models import FullyConvolutionalMAE, Unet2d, Unet25d, UNeXt2

FILTERS = {"num_blocks": 1, "num_filters": [2, 4]}


def pretrainer(small_network, **options):
    config = {"in_channels": 1, "out_channels": 1, **small_network}
    return FcmaeUNet(model_config=config, **({"fit_mask_ratio": 0.5} | options))


def finetuner(small_network, **options):
    config = {"in_channels": 1, "out_channels": 2, "pretraining": False, **small_network}
    return FcmaeUNet(model_config=config, **options)


def saved(module, path):
    torch.save({"state_dict": module.state_dict()}, path)
    return str(path)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "source": torch.randn(2, 1, 5, 16, 16, generator=generator),
        "target": torch.randn(2, 2, 5, 16, 16, generator=generator),
    }


@pytest.mark.parametrize(
    ("architecture", "network", "config"),
    [
        ("2D", Unet2d, FILTERS),
        ("2.5D", Unet25d, FILTERS),
        ("UNeXt2", UNeXt2, {"backbone": "convnextv2_atto"}),
        (
            "fcmae",
            FullyConvolutionalMAE,
            {"in_channels": 1, "out_channels": 1, "encoder_blocks": [1, 1], "dims": [8, 16]},
        ),
    ],
)
def test_checkpoints_hold_the_network_and_nothing_else(architecture, network, config):
    module = VSUNet(architecture, config)
    assert list(module.state_dict()) == [f"model.{name}" for name in network(**config).state_dict()]
    assert module.example_input_array.shape[-2:] == (256, 256)


def test_a_module_begins_with_the_weights_of_another(tmp_path):
    first, other = VSUNet("2D", FILTERS), VSUNet("2D", {**FILTERS, "num_filters": [2, 8]})
    again = VSUNet("2D", FILTERS, ckpt_path=saved(first, tmp_path / "first.ckpt"))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    with pytest.raises(ValueError, match="does not fit Unet2d"):
        VSUNet("2D", FILTERS, ckpt_path=saved(other, tmp_path / "other.ckpt"))
    with pytest.raises(InputError, match="the weights of this VSUNet"):
        other.load_state_dict(first.state_dict())


def test_the_loss_is_that_of_prediction_and_target(small_network, batch):
    module = VSUNet("fcmae", {"in_channels": 1, "out_channels": 2, **small_network}, nn.L1Loss())
    expected = (module.model(batch["source"]) - batch["target"]).abs().mean()
    predicted, target, loss = module.fit_task(batch)
    torch.testing.assert_close(loss, expected)
    assert target is batch["target"]
    assert predicted.shape == target.shape


def test_several_batches_make_one_step_weighted_by_their_samples(small_network, batch, monkeypatch):
    module = VSUNet("fcmae", {"in_channels": 1, "out_channels": 2, **small_network})
    monkeypatch.setattr(module, "log", lambda *args, **options: None)
    one = {key: value[:1] + 3 for key, value in batch.items()}
    losses = [module.fit_task(part)[2] for part in (batch, one)]
    torch.testing.assert_close(module.training_step([batch, one], 0), (2 * losses[0] + losses[1]) / 3)


def test_pre_training_counts_the_hidden_part_alone(small_network, batch):
    module = pretrainer(small_network)
    torch.manual_seed(0)
    predicted, mask = module.model(batch["source"], mask_ratio=0.5)
    assert 0 < mask.float().mean() < 1
    squared = (predicted - batch["source"]) ** 2
    expected = torch.stack([squared[b, 0][:, mask[b, 0]].mean() for b in range(2)]).mean()  # masks of one size
    torch.manual_seed(0)
    found, image, loss = module.forward_fit_fcmae(batch, return_target=True)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, predicted)
    assert image is batch["source"]
    assert isinstance(module.loss_function, MaskedMSELoss)


def test_fine_tuning_begins_with_the_encoder_alone(small_network, batch, tmp_path):
    path = saved(pretrainer(small_network), tmp_path / "pretrained.ckpt")
    weights = torch.load(path, weights_only=True)["state_dict"]
    module = finetuner(small_network, ckpt_path=path, encoder_only=True)
    own = module.state_dict()
    encoder = [name for name in own if name.startswith("model.encoder.")]
    assert encoder
    assert all(torch.equal(own[name], weights[name]) for name in encoder)
    with pytest.raises(ValueError, match="of another shape"):
        finetuner(small_network, ckpt_path=path)
    assert module.fit_task(batch)[0].shape == batch["target"].shape


def test_frozen_encoders_are_not_trained(small_network):
    module = finetuner(small_network, freeze_encoder=True)
    trained = {id(parameter) for parameter in module.configure_optimizers()["optimizer"].param_groups[0]["params"]}
    for name, parameter in module.named_parameters():
        assert (id(parameter) in trained) == (not name.startswith("model.encoder.")), name
    with pytest.raises(InputError, match="freeze_encoder"):
        VSUNet("2D", FILTERS, freeze_encoder=True)


def test_a_loss_that_is_not_finite_stops_the_training(small_network, batch, monkeypatch):
    module = finetuner(small_network)
    monkeypatch.setattr(module, "log", lambda *args, **options: None)
    batch["target"][0, 0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="the loss of MSELoss is NaN or infinite"):
        module.training_step(batch, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "UNext"}, "did you mean 'UNeXt2'"),
        ({"architecture": "FNet3D"}, "not part of viscy-models"),
        ({"model_config": {"num_block": 2}}, "did you mean 'num_blocks'"),
        ({"architecture": "fcmae"}, "no in_channels, out_channels"),
        ({"tta_type": "max"}, "tta_type"),
        ({"test_evaluate_cellpose": True}, "SegmentationMetrics2D"),
        ({"schedule": "Linear"}, "schedule"),
        ({"warmup_steps": -1}, "warmup_steps: found -1"),
        ({"example_input_yx_shape": [8]}, "example_input_yx_shape"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VSUNet(**({"architecture": "2D"} | options))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, None])
def test_mask_ratios_out_of_range_are_refused(small_network, ratio):
    with pytest.raises(InputError, match="a share from 0 to below 1"):
        pretrainer(small_network, fit_mask_ratio=ratio)


def test_options_that_exclude_each_other_are_refused(small_network, batch):
    with pytest.raises(InputError, match="false without ckpt_path"):
        finetuner(small_network, encoder_only=True)
    with pytest.raises(InputError, match="nothing is hidden from a network that is not pre-trained"):
        finetuner(small_network, fit_mask_ratio=0.5)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu"}
    with pytest.raises(InputError, match="more than 0"):
        Trainer(max_epochs=1, **quiet).fit(pretrainer(small_network, fit_mask_ratio=0.0), [batch], [batch])
