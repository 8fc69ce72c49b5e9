"""Networks that are compiled and laid out channels last train as plain ones do, and keep their names and weights."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from viscy_utils.callbacks import FastNetwork

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),  # torch.compile looks at its inputs
]


class InSpace(nn.Conv3d):
    """A network with a function of its own: torch 2.7 and 2.8 leave bare layers uncompiled."""

    def forward(self, x):
        return super().forward(x)


class InPlane(nn.Conv2d):
    """The same in the plane."""

    def forward(self, x):
        return super().forward(x)


class Module(LightningModule):
    """A stem in the volume, a convolution in the plane, and a loss with a weight that is no network."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.trunk = InSpace(1, 4, (3, 1, 1)), InPlane(4, 2, 3)
        self.loss = nn.PReLU()
        self.seen = []

    def forward(self, x):
        return self.trunk(self.stem(x).squeeze(2))

    def training_step(self, batch, batch_idx):
        found = self.loss(self(batch)).square().mean()
        self.seen.append(found.item())
        return found

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _train(path, *callbacks):
    module = Module()
    names = list(module.state_dict())
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "default_root_dir": path}
    trainer = Trainer(
        max_epochs=3, enable_progress_bar=False, enable_model_summary=False, callbacks=[*callbacks], **options
    )
    images = torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    trainer.fit(module, DataLoader([images, images.flip(0)], batch_size=None))
    assert list(module.state_dict()) == names
    return module


def test_training_is_the_same_however_the_network_computes(tmp_path):
    plain = _train(tmp_path)
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    torch._dynamo.register_backend(backend, name="counting")
    fast = _train(tmp_path, FastNetwork(compile=True, channels_last=True, backend="counting"))
    assert len(calls) == 2  # the networks, not the loss
    torch.testing.assert_close(fast.seen, plain.seen)
    torch.testing.assert_close(fast.state_dict(), plain.state_dict())
    assert fast.stem.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert fast.trunk.weight.is_contiguous(memory_format=torch.channels_last)
    assert not fast.trunk.weight.is_contiguous()
    assert copy.deepcopy(fast).trunk.weight.equal(fast.trunk.weight)


def test_nothing_changes_unasked_and_a_backend_has_to_exist(tmp_path):
    module = _train(tmp_path, FastNetwork())
    assert module.trunk.weight.is_contiguous()
    with pytest.raises(ValueError, match=r"backend: found 'fast', expected one of .*inductor"):
        FastNetwork(backend="fast")
