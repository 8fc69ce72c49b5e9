"""No part of a training step waits for the device: transforms, channel dropout, encoder, loss, figures, backward."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import viscy_transforms as vt
from dynaclr.engine import ContrastiveModule
from dynaclr.loss import NTXentHCL
from viscy_data import ChannelDropout
from viscy_data.batches import TransformPipeline
from viscy_losses import LossRegistry

KEYS = ["ch_0", "ch_1"]
WAITS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}


class NoWaiting(TorchDispatchMode):
    """Refuse questions about values on the device, copies from it, and copies to it that are waited for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        out = func(*args, **kwargs)
        sources = {value.device.type for value in args if isinstance(value, torch.Tensor) and value.ndim}
        target = out.device.type if isinstance(out, torch.Tensor) else None
        assert not (name in WAITS and "meta" in sources), f"{name} waits for the device"
        assert not (target == "cpu" and "meta" in sources), f"{name} brings data back"
        if target == "meta" and "cpu" in sources:
            waited_for = name in ("_to_copy", "copy_") and not (kwargs.get("non_blocking") or args[-1] is True)
            assert not waited_for, f"{name} waits until the data have gone"
        return out


class Encoder(nn.Module):
    """A linear layer with a head."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(2 * 2 * 8 * 8, 6), nn.Linear(6, 4)

    def forward(self, x):
        features = self.backbone(x.flatten(1))
        return features, self.head(features)


def _batch(n=4):
    images = torch.ones(n, 2, 3, 12, 12, device="meta")
    level = {"mean": torch.ones(n, device="meta"), "std": torch.ones(n, device="meta")}
    statistics = {key: {"fov_statistics": level} for key in KEYS}
    batch = {"anchor": images, "positive": images.clone()}
    batch |= {f"{role}_norm_meta": statistics for role in ("anchor", "positive")}
    batch["lineage"] = torch.ones(n, dtype=torch.int64, device="meta")
    batch["channel_mask"] = torch.ones(n, 2, dtype=torch.bool, device="meta")
    return batch


def _pipeline():
    augmentations = [
        vt.BatchedRandAffined(
            KEYS, prob=0.8, rotate_range=[0.5, 0.0, 0.0], scale_range=[[1.0, 1.0], [0.8, 1.2], [0.8, 1.2]]
        ),
        vt.BatchedRandFlipd(KEYS, prob=0.5, spatial_axes=[1, 2]),
        vt.BatchedRandAdjustContrastd(KEYS, prob=0.5),
        vt.BatchedRandScaleIntensityd(KEYS, prob=0.5),
        vt.BatchedRandGaussianSmoothd(KEYS, prob=0.5),
        vt.BatchedRandSpatialCropd(KEYS, roi_size=[2, 10, 10]),
    ]
    normalizations = [vt.NormalizeSampled(KEYS, level="fov_statistics")]
    return TransformPipeline(KEYS, normalizations, augmentations, (2, 8, 8), ChannelDropout([1], p=0.5))


def _loss(name):
    options = {"moco": {"queue_size": 8, "dim": 4}}.get(name, {})
    return NTXentHCL() if name == "NTXentHCL" else LossRegistry.create(name, **options)


@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("name", ["NTXentHCL", *LossRegistry.available()])
def test_a_training_step_asks_for_no_value(name, momentum):
    module = ContrastiveModule(Encoder(), _loss(name), momentum=momentum).to("meta")
    pipeline = _pipeline()
    torch.manual_seed(0)
    with warnings.catch_warnings(), NoWaiting():
        warnings.filterwarnings("ignore", "You are trying to `self.log", UserWarning)
        for number in range(3):
            module.training_step(pipeline(_batch(), training=True), number).backward()
    assert all(parameter.grad is not None for parameter in module.model.parameters())


def test_cutting_patches_near_the_border_asks_for_no_value():
    batch = _batch() | {"anchor_cut": np.array([[0, 1], [2, 2], [4, 3], [2, 2]])}
    with NoWaiting():
        prepared = TransformPipeline(KEYS, final_size=(2, 8, 8))(batch, training=True)
    assert prepared["anchor"].shape == prepared["positive"].shape == (4, 2, 2, 8, 8)


def test_the_watch_sees_what_it_is_there_for():
    x, on_cpu = torch.ones(2, device="meta"), torch.ones(2)
    for question, message in (
        (lambda: x.sum().item(), "_local_scalar_dense waits"),
        (lambda: x[x > 0], "nonzero waits"),
        (lambda: x.cpu(), "_to_copy"),
        (lambda: on_cpu.to("meta"), "waits until the data have gone"),
    ):
        with (
            pytest.raises((AssertionError, NotImplementedError, RuntimeError), match=f"{message}|[Mm]eta"),
            NoWaiting(),
        ):
            question()
    with NoWaiting():
        on_cpu.to("meta", non_blocking=True)
