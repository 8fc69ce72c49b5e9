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

from dynaclr.adaptation import BatchStatistics, balanced_rows
from dynaclr.datamodule import MultiExperimentDataModule
from dynaclr.loss import NTXentHCL
from dynaclr.multi_modal import JointContrastiveModule, JointEncoders, MultiModalContrastiveModule
from viscy_data.errors import InputError
from viscy_models import ContrastiveEncoder
from viscy_utils.runs.onnx_export import export_onnx

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*some come several times"),  # there are few cells
]
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


class NormedEncoder(nn.Module):
    """A linear layer of one channel, and a head with batch normalisation."""

    num_features = 4

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.backbone, self.head = nn.Linear(96, 4), nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    def forward(self, x):
        features = self.backbone(x.flatten(1))
        return features, self.head(features)


QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
N_CELLS = 30  # of an experiment: 15 of each condition


def experiments_data(experiments, **options):
    sizes = {"z_range": (1, 3), "yx_patch_size": (6, 8), "final_yx_patch_size": (6, 8), "batch_size": 6}
    options |= {"num_workers": 0, "val_experiments": ["second"], "tau_range": (0.5, 1.0)}
    return MultiExperimentDataModule(str(experiments.yaml), **sizes, **options)


def normed(**options):
    encoders = JointEncoders(NormedEncoder(0), NormedEncoder(1))
    return MultiModalContrastiveModule(encoders, NTXentHCL(), example_input_array_shape=(1, 2, 2, 6, 8), **options)


@pytest.mark.parametrize("arm", ["source", "target"])
def test_either_arm_is_predicted_by_statistics_of_each_experiment(encoded_experiments, arm):
    source = experiments_data(encoded_experiments())

    def predicted(**options):
        module = normed(prediction_arm=arm, **options)
        batches = Trainer(**QUIET).predict(module, source)
        return module, *(torch.cat([batch[key] for batch in batches]).numpy() for key in ("features", "projections"))

    _, plain, _ = predicted()
    module, features, projections = predicted(batch_statistics=BatchStatistics(N_CELLS))
    tracks, (linear, norm) = source.predict_dataset.index.tracks, module.predictor.head
    names, conditions = (tracks[column].to_numpy().astype(str) for column in ("experiment", "condition"))
    for name in ("first", "second"):
        rows = np.flatnonzero(names == name)
        drawn = rows[balanced_rows(conditions[rows], N_CELLS, source.seed)]
        weight, bias = (value.detach().double().numpy() for value in (linear.weight, linear.bias))
        for found, x in ((features, plain.astype(np.float64)), (projections, plain @ weight.T + bias)):
            own = x[drawn]
            expected = (x[rows] - own.mean(axis=0)) / np.sqrt(own.var(axis=0, ddof=1) + norm.eps)
            np.testing.assert_allclose(found[rows], expected, rtol=1e-3, atol=1e-3)
    turned, turned_features, _ = predicted(predict_turned=True)
    batches = [source.on_after_batch_transfer(batch, 0)["anchor"] for batch in source.predict_dataloader()]
    images = torch.cat(batches)[:, 0 if arm == "source" else 1][:, None]
    views = [images, images.flip(-1), images.flip(-2), images.flip((-2, -1))]
    expected = torch.stack([turned.predictor(view)[0] for view in views]).mean(dim=0)
    np.testing.assert_allclose(turned_features, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_validation_by_own_statistics_uses_those_of_each_arm(encoded_experiments):
    experiments = encoded_experiments()
    (plain,) = Trainer(**QUIET).validate(normed(), experiments_data(experiments), verbose=False)
    module, source = normed(batch_statistics=BatchStatistics(N_CELLS)), experiments_data(experiments)
    (found,) = Trainer(**QUIET).validate(module, source, verbose=False)
    items = balanced_rows(
        source.val_dataset.index.tracks["condition"].iloc[source.val_dataset.index.anchor_rows].to_numpy().astype(str),
        N_CELLS, source.seed,
    )  # fmt: skip
    drawn = source.on_after_batch_transfer(source.val_dataset[items.tolist()], 0)["anchor"]
    arms = [getattr(module.model, f"{arm}_encoder").eval() for arm in ("source", "target")]
    with torch.no_grad():
        for number, arm in enumerate(arms):
            own = arm.head[0](arm(drawn[:, number : number + 1])[0]).double()
            arm.head[1].running_mean.copy_(own.mean(dim=0))
            arm.head[1].running_var.copy_(own.var(dim=0))
        losses, sizes = [], []
        for data in source.val_dataloader():
            data = source.on_after_batch_transfer(data, 0)
            (anchor_s, anchor_t), (positive_s, positive_t) = (
                [arm(data[role][:, number : number + 1])[1] for number, arm in enumerate(arms)]
                for role in ("anchor", "positive")
            )
            pairs = module.loss_function.forward_pairs
            compared = pairs(anchor_s, anchor_t, data["lineage"]) + pairs(positive_t, positive_s, data["lineage"])
            losses.append(compared.item())
            sizes.append(len(anchor_s))
    assert found["loss/val_epoch"] == pytest.approx(np.average(losses, weights=sizes), rel=1e-3)
    assert plain["loss/val_epoch"] != pytest.approx(found["loss/val_epoch"], rel=1e-2)


def test_encoders_that_do_not_say_how_wide_they_are_are_refused_before_they_predict():
    with pytest.raises(InputError, match=r"JointEncoders.*\n.*num_features"):
        module(batch_statistics=BatchStatistics())


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
    with pytest.raises(ValueError, match=r"JointEncoders"):
        MultiModalContrastiveModule(Encoder(0))
    with pytest.raises(ValueError, match="a channel per arm"):
        MultiModalContrastiveModule(encoders, example_input_array_shape=(1, 3, 1, 8, 8))
    with pytest.raises(ValueError, match="expected 2, source and target"):
        module().predict_step(batch(channels=1), 0)
