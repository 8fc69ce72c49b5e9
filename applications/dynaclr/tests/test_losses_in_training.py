"""Every loss by class path, as in a configuration, and a training step with it."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.utils.data import DataLoader

from dynaclr.engine import ContrastiveModule
from dynaclr.loss import NTXentHCL
from viscy_losses import HardNegativeLoss, LossRegistry, MoCoLoss, SimCLRLoss
from viscy_models import ContrastiveEncoder

OPTIONS = {
    "BarlowTwinsLoss": {"redundancy_weight": 0.01, "gather_distributed": True},
    "CLIPLoss": {"temperature": 0.1, "learn_temperature": True, "chunk_size": 2},
    "DCLLoss": {"temperature": 0.1, "chunk_size": 2},
    "DebiasedLoss": {"temperature": 0.1, "prior": 0.2, "chunk_size": 2},
    "FocalLoss": {"gamma": 1.0, "temperature": 0.2},
    "HardNegativeLoss": {"temperature": 0.1, "beta": 1.0, "beta_scale": "logit", "gather_distributed": True},
    "MoCoLoss": {"temperature": 0.1, "queue_size": 8},
    "SigLIPLoss": {"bias": -5.0, "normalize": True},
    "SimCLRLoss": {"temperature": 0.1, "gather_distributed": True},
    "SupConLoss": {"temperature": 0.2},
    "TripletLoss": {"margin": 0.3, "mining": "hard"},
    "VICRegLoss": {"variance_weight": 10.0},
}
PEERS = ["dynaclr.loss.NTXentHCL", "pytorch_metric_learning.losses.NTXentLoss", "torch.nn.TripletMarginLoss"]


class Encoder(nn.Module):
    """A linear layer with a head."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x):
        features = self.backbone(x.flatten(1))
        return features, self.head(features)


def _batches(*sizes):
    generator = torch.Generator().manual_seed(0)
    batches = [
        {key: torch.randn(n, 1, 2, 2, 2, generator=generator) for key in ("anchor", "positive")}
        | {"lineage": torch.arange(n) // 2, "index": {"t": torch.arange(n)}}
        for n in sizes
    ]
    return DataLoader(batches, batch_size=None)


def _parse(class_path, options):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ContrastiveModule, "model")
    config = {
        "encoder": {"class_path": "torch.nn.Identity"},
        "loss_function": {"class_path": class_path, "init_args": options},
    }
    return parser.instantiate_classes(parser.parse_string(yaml.safe_dump({"model": config}))).model.loss_function


def _trainer(path, **options):
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=path,
        **({"max_epochs": 1} | options),
    )


def test_all_losses_are_in_these_tests():
    losses = [type(LossRegistry.create(name)) for name in LossRegistry.available()]
    assert {loss.__name__ for loss in losses if loss.__module__.startswith("viscy_losses.")} == set(OPTIONS)


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:a (train|val) batch of one cell has no negatives")
@pytest.mark.parametrize(("name", "options"), OPTIONS.items(), ids=OPTIONS)
def test_a_configuration_trains_with_any_loss(name, options, tmp_path):
    loss = _parse(f"viscy_losses.{name}", options)
    assert type(loss).__name__ == name
    module = ContrastiveModule(Encoder(), loss, example_input_array_shape=(1, 1, 2, 2, 2))
    before = [parameter.clone() for parameter in module.model.parameters()]
    trainer = _trainer(tmp_path)
    trainer.fit(module, _batches(4, 4, 1), _batches(4))
    assert all(math.isfinite(trainer.callback_metrics[f"loss/{stage}"]) for stage in ("train", "val"))
    assert any((a != b).any() for a, b in zip(before, module.model.parameters(), strict=True))
    assert all(parameter.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("class_path", PEERS)
def test_losses_of_old_configurations_are_parsed_alike(class_path):
    options = {"margin": 0.3} if "Triplet" in class_path else {"temperature": 0.1}
    assert type(_parse(class_path, options)).__name__ == class_path.rpartition(".")[2]


def test_the_command_line_of_lightning_takes_them(monkeypatch):
    monkeypatch.setattr("sys.argv", ["fit"])
    arguments = [
        "--model.encoder=torch.nn.Identity",
        "--model.loss_function=viscy_losses.HardNegativeLoss",
        "--model.loss_function.beta=2.0",
        "--model.loss_function.chunk_size=16",
        "--trainer.accelerator=cpu",
    ]
    options = {"save_config_callback": None, "seed_everything_default": False, "run": False}
    cli = LightningCLI(ContrastiveModule, LightningDataModule, args=arguments, **options)
    assert cli.model.loss_function.chunk_size == 16
    assert cli.model.loss_function.concentration == pytest.approx(2.0 * 0.07)


def test_lineages_reach_the_loss():
    module = ContrastiveModule(Encoder(), SimCLRLoss(0.2))
    reference = ContrastiveModule(Encoder(), NTXentHCL(0.2, beta=0.0))
    reference.load_state_dict({name: value for name, value in module.state_dict().items() if name.startswith("model.")})
    (batch,) = _batches(6)
    for part in (module, reference):
        part.log = lambda *args, **kwargs: None
        part.trainer = _trainer(None)
    torch.testing.assert_close(module.training_step(batch, 0), reference.training_step(batch, 0))


@pytest.mark.parametrize("scale", ["similarity", "logit"])
def test_hard_negatives_weigh_alike_in_both_packages(scale):
    anchor, positive = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)).unbind()
    lineage = torch.tensor([0, 0, 1, 2, 3, 3])
    losses = [kind(0.1, 1.5, beta_scale=scale) for kind in (HardNegativeLoss, NTXentHCL)]
    values = [loss.forward_pairs(anchor, positive, lineage) for loss in losses]
    torch.testing.assert_close(*values, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_a_checkpoint_holds_the_queue(tmp_path):
    def module():
        return ContrastiveModule(Encoder(), MoCoLoss(0.1, queue_size=8), example_input_array_shape=(1, 1, 2, 2, 2))

    trained, resumed = module(), module()
    trainer = _trainer(tmp_path)
    trainer.fit(trained, _batches(4, 4, 4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"])
    torch.testing.assert_close(resumed.loss_function.queue, trained.loss_function.queue)
    assert trained.loss_function.position == 4


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("class_path", ["NTXentHCL", *LossRegistry.available()])
def test_every_loss_trains_in_every_precision(class_path, precision, tmp_path):
    options = {"moco": {"queue_size": 8}}.get(class_path, {})
    loss = NTXentHCL() if class_path == "NTXentHCL" else LossRegistry.create(class_path, **options)
    module = ContrastiveModule(Encoder(), loss, momentum=0.9)
    trainer = _trainer(tmp_path, precision=precision)
    trainer.fit(module, _batches(4, 4), _batches(4))
    assert math.isfinite(trainer.callback_metrics["loss/train_epoch"])
    found = trainer.predict(module, _batches(4))[0]["features"]
    assert (
        found.dtype == {"64-true": torch.float64, "bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16}[precision]
    )


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_an_encoder_compiled_by_inductor_trains_like_a_plain_one(tmp_path):
    """Not only traced: with the compiler that users get by default."""
    weights = {}
    for name in ("plain", "compiled"):
        torch.manual_seed(0)
        encoder = ContrastiveEncoder("convnext_atto", 1, 1, (1, 2, 2), (1, 2, 2), embedding_dim=8, projection_dim=4)
        module = ContrastiveModule(torch.compile(encoder) if name == "compiled" else encoder, NTXentHCL(), lr=1e-3)
        generator = torch.Generator().manual_seed(1)
        views = {key: torch.randn(4, 1, 1, 32, 32, generator=generator) for key in ("anchor", "positive")}
        _trainer(tmp_path).fit(module, DataLoader([views], batch_size=None))
        weights[name] = module.state_dict()
    torch.compiler.reset()
    for key, value in weights["plain"].items():
        # One step of AdamW moves each weight by the rate at most, whichever way rounding points where nothing pulls.
        torch.testing.assert_close(weights["compiled"][key], value, msg=key, rtol=1e-2, atol=2.1e-3)
