"""Two encoders of two channels: the loss written out, a real fit, prediction of either arm, export."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from pytorch_metric_learning.losses import NTXentLoss
from torch import nn
from torch.utils.data import DataLoader

from dynaclr.loss import NTXentHCL
from dynaclr.multi_modal import JointContrastiveModule, JointEncoders, MultiModalContrastiveModule
from viscy_models import ContrastiveEncoder
from viscy_utils.runs.onnx_export import export_onnx

SHAPE = (1, 2, 1, 8, 8)


class Encoder(nn.Module):
    """A linear layer of one channel, with a head."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.backbone, self.head = nn.Linear(64, 6), nn.Linear(6, 4)

    def forward(self, x):
        features = self.backbone(x.flatten(1))
        return features, self.head(features)


def module(loss=None, **options):
    encoders = JointEncoders(Encoder(0), Encoder(1))
    return MultiModalContrastiveModule(encoders, loss, example_input_array_shape=SHAPE, **options)


def batch(n=6, seed=0, channels=2):
    generator = torch.Generator().manual_seed(seed)
    images = {
        role: torch.randn(n, channels, 1, 8, 8, generator=generator) for role in ("anchor", "positive", "negative")
    }
    return images | {"lineage": torch.arange(n), "index": {"t": torch.arange(n)}}


def projections(model, images):
    """Both arms, a cell at a time."""
    source = [model.model.source_encoder(image[None, :1])[1] for image in images]
    target = [model.model.target_encoder(image[None, 1:])[1] for image in images]
    return torch.cat(source), torch.cat(target)


def losses(model, loader):
    """Train for an epoch, and return its logged loss: of a single batch that of the weights before the step."""
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(model, loader, DataLoader([batch()], batch_size=None))
    return trainer.callback_metrics["loss/train"].item()


@pytest.mark.parametrize("loss", [NTXentLoss(temperature=0.2), NTXentHCL(temperature=0.2, beta=0.5)])
def test_the_loss_is_of_both_comparisons(loss):
    model, data = module(loss), batch()
    with torch.no_grad():
        (anchor_s, anchor_t), (positive_s, positive_t) = (projections(model, data[r]) for r in ("anchor", "positive"))
        labels = torch.arange(6).repeat(2)
        expected = loss(torch.cat([anchor_s, anchor_t]), labels) + loss(torch.cat([positive_t, positive_s]), labels)
    found = losses(model, DataLoader([data], batch_size=None))
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_a_triplet_loss_takes_the_negative_of_the_other_arm():
    model, data = module(), batch()
    with torch.no_grad():
        pairs = {role: projections(model, data[role]) for role in ("anchor", "positive", "negative")}
        expected = 0.0
        for first, second, other in zip(
            (pairs["anchor"][0], pairs["positive"][1]),
            (pairs["anchor"][1], pairs["positive"][0]),
            (pairs["negative"][1], pairs["negative"][0]),
            strict=True,
        ):
            for a, p, n in zip(first, second, other, strict=True):
                expected += max(0.0, (a - p).norm().item() - (a - n).norm().item() + 0.5) / 6
    assert losses(model, DataLoader([data], batch_size=None)) == pytest.approx(expected, rel=1e-4)


def test_training_brings_the_channels_of_a_cell_together():
    torch.manual_seed(0)
    shared = torch.randn(64, 1, 1, 8, 8)
    data = [
        {role: torch.cat([shared, -shared.flip(-1)], dim=1) + 0.1 * torch.randn(64, 2, 1, 8, 8) for role in
         ("anchor", "positive")} | {"lineage": torch.arange(64), "index": {"t": torch.arange(64)}}
        for _ in range(60)
    ]  # fmt: skip
    model = module(NTXentLoss(temperature=0.2), lr=0.02)

    def matched():
        source, target = projections(model, data[0]["anchor"])
        similarity = nn.functional.normalize(source) @ nn.functional.normalize(target).T
        return (similarity.argmax(dim=1) == torch.arange(64)).float().mean().item()

    before = matched()
    losses(model, DataLoader(data, batch_size=None))
    assert before < 0.2
    assert matched() > 0.8


def test_the_embedding_is_drawn_in_every_so_many_epochs(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    trainer = Trainer(max_epochs=3, accelerator="cpu", logger=logger, enable_checkpointing=False, log_every_n_steps=1,
                      enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    loader = DataLoader([batch()], batch_size=None)
    trainer.fit(module(NTXentLoss(), log_embeddings=True, embedding_log_frequency=2), loader, loader)
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert [image.step for image in events.Images("val_embeddings")] == [0, 2]
    assert [image.step for image in events.Images("val_samples")] == [0, 1, 2]


@pytest.mark.parametrize(("arm", "number"), [("source", 0), ("target", 1)])
def test_predictions_come_from_the_arm(arm, number):
    model, data = module(NTXentLoss(), prediction_arm=arm), batch()
    with torch.no_grad():
        found = model.predict_step(data, 0)
    encoder = model.model.source_encoder if arm == "source" else model.model.target_encoder
    torch.testing.assert_close(found["projections"], projections(model, data["anchor"])[number])
    torch.testing.assert_close(found["features"], encoder(data["anchor"][:, number : number + 1])[0])
    assert found["index"] is data["index"]


def test_names_in_checkpoints_and_of_before():
    assert JointContrastiveModule is MultiModalContrastiveModule
    names = {name.rsplit(".", 2)[0] for name in module().state_dict()}
    assert names == {"model.source_encoder", "model.target_encoder"}
    features = module().model.forward_features(torch.zeros(2, 1, 1, 8, 8), torch.zeros(2, 1, 1, 8, 8))
    assert [part.shape for part in features] == [(2, 6), (2, 6)]


def test_an_export_has_both_inputs_and_outputs(tmp_path):
    model = module(NTXentLoss())
    export_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert [entry.name for entry in session.get_inputs()] == ["input", "input_1"]
    data = batch(3)["anchor"]
    found = session.run(None, {"input": data[:, :1].numpy(), "input_1": data[:, 1:].numpy()})
    with torch.no_grad():
        expected = projections(model, data)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-5)


def test_real_encoders_say_what_they_take():
    options = {"backbone": "convnext_tiny", "in_channels": 1, "in_stack_depth": 5, "stem_kernel_size": (5, 4, 4),
               "stem_stride": (5, 4, 4), "embedding_dim": 32, "projection_dim": 8}  # fmt: skip
    encoders = JointEncoders(ContrastiveEncoder(**options), ContrastiveEncoder(**options))
    assert JointContrastiveModule(encoders).expected_input() == {"channels": 2, "depth": 5}


def test_bad_options_and_images_of_one_channel_are_refused():
    encoders = JointEncoders(Encoder(0), Encoder(1))
    with pytest.raises(ValueError, match="prediction_arm"):
        MultiModalContrastiveModule(encoders, prediction_arm="both")
    with pytest.raises(ValueError, match="embedding_log_frequency: found 0"):
        MultiModalContrastiveModule(encoders, embedding_log_frequency=0)
    with pytest.raises(ValueError, match="JointEncoders"):
        MultiModalContrastiveModule(Encoder(0))
    with pytest.raises(ValueError, match="a channel per arm"):
        MultiModalContrastiveModule(encoders, example_input_array_shape=(1, 3, 1, 8, 8))
    with pytest.raises(ValueError, match="expected 2, source and target"):
        module().predict_step(batch(channels=1), 0)
