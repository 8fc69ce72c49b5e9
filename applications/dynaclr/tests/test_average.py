"""The average of an encoder: keys of MoCo, prediction, checkpoints."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from dynaclr.engine import ContrastiveModule
from viscy_losses import MoCoLoss, SimCLRLoss

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


class Encoder(nn.Module):
    """A linear layer, batch normalisation, which has buffers, and a head.

    No bias before the normalisation: its gradient is rounding, of which AdamW makes steps.
    """

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        features = self.backbone(x)
        return features, self.head(features)


def _batches(n=6):
    generator = torch.Generator().manual_seed(0)
    return [
        {key: torch.randn(4, 1, 2, 2, 2, generator=generator) for key in ("anchor", "positive")} | {"index": {}}
        for _ in range(n)
    ]


def _module(loss=None, **options):
    torch.manual_seed(0)
    return ContrastiveModule(Encoder(), loss or MoCoLoss(queue_size=8, dim=4), lr=0.05, **options)


def _trainer(path, **options):
    defaults = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    defaults |= {"enable_checkpointing": False, "default_root_dir": path, "logger": False}
    return Trainer(**(defaults | options))


def _fit(module, path, batches=None, **options):
    trainer = _trainer(path, **options)
    trainer.fit(module, DataLoader(batches or _batches(), batch_size=None))
    return trainer


def _slow_loop(module, momentum, batches, accumulate):
    """Train encoder and key encoder by hand."""
    encoder, loss = copy.deepcopy(module.model), copy.deepcopy(module.loss_function)
    keys = copy.deepcopy(encoder)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=module.lr)
    takes_keys = isinstance(loss, MoCoLoss)
    for number, batch in enumerate(batches, start=1):
        with torch.no_grad():
            key = keys(batch["positive"])[1] if takes_keys else None
        query = encoder(batch["anchor"])[1]
        key = encoder(batch["positive"])[1] if key is None else key
        (loss(query, key)["loss"] / accumulate).backward()
        if number % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for average, weight in zip(keys.parameters(), encoder.parameters(), strict=True):
                    average.copy_(momentum * average + (1 - momentum) * weight)
                if not takes_keys:
                    for average, buffer in zip(keys.buffers(), encoder.buffers(), strict=True):
                        average.copy_(buffer)
    return encoder, keys


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("loss", [MoCoLoss(queue_size=8, dim=4), SimCLRLoss()], ids=["keys", "average only"])
def test_it_is_the_slow_loop(tmp_path, loss, accumulate):
    module = _module(copy.deepcopy(loss), momentum=0.75)
    encoder, keys = _slow_loop(module.train(), 0.75, _batches(), accumulate)
    _fit(module, tmp_path, accumulate_grad_batches=accumulate)
    torch.testing.assert_close(module.model.state_dict(), encoder.state_dict())
    torch.testing.assert_close(module.average.state_dict(), keys.state_dict())
    assert not torch.equal(module.average.head.weight, module.model.head.weight)


def test_without_momentum_keys_come_from_the_encoder_itself(tmp_path):
    plain, at_once = _module(), _module(momentum=0.0)
    assert plain.average is None
    for module in (plain, at_once):
        _fit(module, tmp_path)
    torch.testing.assert_close(at_once.average.head.weight, at_once.model.head.weight)
    assert not torch.allclose(plain.model.head.bias, _module().model.head.bias)


def test_a_run_that_is_resumed_goes_on_as_an_unbroken_one(tmp_path):
    unbroken, first, second = (_module(momentum=0.9) for _ in range(3))
    _fit(unbroken, tmp_path, max_epochs=2)
    _fit(first, tmp_path).save_checkpoint(tmp_path / "last.ckpt")
    trainer = _trainer(tmp_path, max_epochs=2)
    trainer.fit(second, DataLoader(_batches(), batch_size=None), ckpt_path=tmp_path / "last.ckpt")
    torch.testing.assert_close(second.state_dict(), unbroken.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_older_checkpoint_begins_the_average(tmp_path, compiled):
    old = _module()
    if compiled:
        old.model = torch.compile(old.model, backend="eager")
    _fit(old, tmp_path).save_checkpoint(tmp_path / "old.ckpt")
    module = _module(momentum=0.5)
    module.model.head.weight.data.zero_()
    trainer = _trainer(tmp_path, max_epochs=1)  # no step is left: the state of the optimiser is read as well
    trainer.fit(module, DataLoader(_batches(), batch_size=None), ckpt_path=tmp_path / "old.ckpt")
    torch.testing.assert_close(module.average.head.weight, old.state_dict()["model.head.weight"])
    torch.testing.assert_close(module.model.head.weight, old.state_dict()["model.head.weight"])


def test_predictions_come_from_the_average_on_request(tmp_path):
    trained = _module(momentum=0.9)
    _fit(trained, tmp_path).save_checkpoint(tmp_path / "last.ckpt")
    batch = _batches(1)[0]
    found = {}
    for name, options in {
        "encoder": {"momentum": 0.9},
        "average": {"momentum": 0.9, "predict_with_average": True},
        "encoder alone": {},
    }.items():
        loader = DataLoader([batch], batch_size=None)
        found[name] = _trainer(tmp_path).predict(_module(**options), loader, ckpt_path=tmp_path / "last.ckpt")[0]
    trained.eval()
    for name, network in {"encoder": trained.model, "encoder alone": trained.model, "average": trained.average}.items():
        torch.testing.assert_close(found[name]["features"], network(batch["anchor"])[0])
    assert not torch.allclose(found["encoder"]["features"], found["average"]["features"])


def test_the_average_begins_with_the_weights_of_ckpt_path(tmp_path):
    torch.save({"state_dict": {f"model.{k}": v + 1 for k, v in Encoder().state_dict().items()}}, tmp_path / "a.ckpt")
    module = _module(momentum=0.9, ckpt_path=str(tmp_path / "a.ckpt"))
    torch.testing.assert_close(module.average.state_dict(), module.model.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, "momentum: found 1.0, expected 0 or larger and less than 1"),
        ({"momentum": -0.1}, "momentum: found -0.1"),
        ({"predict_with_average": True}, "predict_with_average: found true, expected false without momentum"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _module(**options)
