"""Nothing waits for a device, and nothing is done sample by sample."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import viscy_transforms as vt

RANDOM = {
    "BatchedRandAffined": {"rotate_range": [1.0, 0.2, 0.0], "scale_range": (0.8, 1.2)},
    "BatchedRandFlipd": {"spatial_axes": [2]},
    "BatchedRandAdjustContrastd": {"retain_stats": True},
    "BatchedRandScaleIntensityd": {"channel_wise": True},
    "BatchedRandHistogramShiftd": {},
    "BatchedRandGaussianNoised": {},
    "BatchedRandSharpend": {},
    "BatchedRandGaussianSmoothd": {},
    "BatchedRandLocalPixelShufflingd": {"shuffle_prob": 0.5},
    "BatchedRand3DElasticd": {"sigma_range": (1.0, 2.0), "magnitude_range": (1.0, 2.0)},
    "BatchedRandZStackShiftd": {"max_shift": 1},
    "RandInvertIntensityd": {},
}
OTHERS = {
    "BatchedRandSpatialCropd": {"roi_size": (2, 4, 4)},
    "BatchedCenterSpatialCropd": {"roi_size": (2, 4, 4)},
    "BatchedScaleIntensityRangePercentilesd": {"lower": 1, "upper": 99, "b_min": 0.0, "b_max": 1.0, "clip": True},
    "BatchedZoomd": {"scale_factor": (1.0, 0.5, 0.5), "mode": "trilinear"},
    "NormalizeSampled": {"level": "fov_statistics"},
}
FIELDS = ("BatchedRandGaussianNoised", "BatchedRand3DElasticd")  # their generator needs a device that computes
ASKS = {"_local_scalar_dense", "item", "is_nonzero", "equal"}
SIZE_DEPENDS_ON_VALUES = {"nonzero", "masked_select", "_unique2", "unique_dim"}


class Watched(TorchDispatchMode):
    """Refuse whatever makes the host wait for the data's device, and count what is launched."""

    def __init__(self):
        super().__init__()
        self.launched = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        out = func(*args, **(kwargs or {}))
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        away = any(tensor.device.type != "cpu" for tensor in tensors)
        back = isinstance(out, torch.Tensor) and out.device.type == "cpu"
        assert name not in ASKS, f"{name} asks for a value"
        assert not (away and name in SIZE_DEPENDS_ON_VALUES), f"{name} waits for a size"
        assert not (away and back), f"{name} brings data to the CPU"
        self.launched += 1
        return out


def make(name, prob):
    if name in OTHERS:
        return getattr(vt, name)("x", **OTHERS[name])
    return getattr(vt, name)("x", prob=prob, **RANDOM[name])


def batch(n, device):
    """Tensors without values (meta) refuse every question about them, and show where a tensor stayed on the CPU."""
    stats = {name: torch.ones(n, device=device) for name in ("mean", "std")}
    return {"x": torch.ones(n, 2, 3, 8, 8, device=device), "norm_meta": {"x": {"fov_statistics": stats}}}


def launches(name, prob, n, device):
    transform, sample = make(name, prob), batch(n, device)
    torch.manual_seed(0)
    with Watched() as watched:
        out = transform(sample)["x"]
    assert out.device.type == device
    return watched.launched


def test_every_batched_transform_is_watched():
    watched = {*RANDOM, *OTHERS}
    batched = {name for name in vt.__all__ if name.startswith("Batched")}
    assert {name for name in batched if name not in watched} == {name[:-1] for name in watched} & batched


@pytest.mark.parametrize("prob", [0.5, 1.0])
@pytest.mark.parametrize("name", [*RANDOM, *OTHERS])
def test_no_value_is_asked_for(name, prob):
    launches(name, prob, 4, "cpu")
    if name not in FIELDS:
        launches(name, prob, 4, "meta")


@pytest.mark.parametrize("name", [*RANDOM, *OTHERS])
def test_a_larger_batch_launches_nothing_more(name):
    device = "cpu" if name in FIELDS else "meta"
    assert launches(name, 1.0, 3, device) == launches(name, 1.0, 24, device)


def test_the_watch_sees_what_it_is_there_for():
    x = torch.ones(2)
    with pytest.raises(AssertionError, match="asks for a value"), Watched():
        x.sum().item()
    with pytest.raises(AssertionError, match="asks for a value"), Watched():
        bool(x.any())
