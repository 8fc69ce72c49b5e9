"""Types of images other than float32: integers, double precision, and 16 bit with and without autocast."""

from __future__ import annotations

import pytest
import torch

import viscy_transforms as vt

INTEGERS = [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.bool]
MOVE = {
    "BatchedRandFlipd": {"spatial_axes": [0, 2]},
    "BatchedRandZStackShiftd": {"max_shift": 2},
    "BatchedRandLocalPixelShufflingd": {"shuffle_prob": 0.5},
}
COMPUTE = {
    "BatchedRandAffined": {"rotate_range": [1.0, 0.2, 0.0], "scale_range": (0.8, 1.2)},
    "BatchedRandAdjustContrastd": {"retain_stats": True},
    "BatchedRandScaleIntensityd": {"channel_wise": True},
    "BatchedRandHistogramShiftd": {},
    "BatchedRandGaussianNoised": {},
    "BatchedRandSharpend": {},
    "BatchedRandGaussianSmoothd": {},
    "BatchedRand3DElasticd": {"sigma_range": (1.0, 2.0), "magnitude_range": (1.0, 2.0)},
    "RandInvertIntensityd": {},
}


def images(dtype, most=200):
    values = torch.rand(6, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * most
    return values > most / 2 if dtype == torch.bool else values.to(dtype)


def transformed(name, x, prob, **options):
    transform = getattr(vt, name)("x", prob=prob, **options)
    transform.set_random_state(3)
    return transform({"x": x})["x"]


@pytest.mark.parametrize("prob", [0.5, 1.0])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("name", MOVE)
def test_moving_pixels_keeps_integers_as_they_are(name, dtype, prob):
    x = images(dtype)
    found = transformed(name, x, prob, **MOVE[name])
    expected = transformed(name, x.double(), prob, **MOVE[name])
    assert found.dtype == dtype
    assert torch.equal(found.double(), expected)
    assert not torch.equal(found.double(), x.double())


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("name", COMPUTE)
def test_computing_makes_floats_of_integers(name, dtype):
    x = images(dtype)
    found = transformed(name, x, 1.0, **COMPUTE[name])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, transformed(name, x.float(), 1.0, **COMPUTE[name]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [*COMPUTE, *MOVE])
def test_autocast_changes_nothing(name, dtype):
    options = (COMPUTE | MOVE)[name]
    x = images(dtype, most=1)
    expected = transformed(name, x, 1.0, **options)
    with torch.autocast("cpu", torch.bfloat16):
        found = transformed(name, x, 1.0, **options)
    assert found.dtype == dtype
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", [*COMPUTE, *MOVE])
def test_double_precision_stays_double(name):
    options = (COMPUTE | MOVE)[name]
    x = images(torch.float64, most=1)
    found = transformed(name, x, 1.0, **options)
    assert found.dtype == torch.float64
    if name not in ("BatchedRandGaussianNoised", "BatchedRand3DElasticd"):  # which draw other numbers for another type
        torch.testing.assert_close(found.float(), transformed(name, x.float(), 1.0, **options), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cval", [0, 3, 40000])
def test_a_shift_fills_unsigned_integers_with_the_value_asked_for(cval):
    x = torch.full((6, 2, 4, 8, 8), 7, dtype=torch.uint16)
    found = transformed("BatchedRandZStackShiftd", x, 1.0, max_shift=3, cval=cval)
    assert set(found.long().unique().tolist()) == {7, cval}


@pytest.mark.parametrize(
    ("dtype", "cval"), [(torch.uint8, 256), (torch.uint8, -1), (torch.int16, 0.5), (torch.bool, 2)]
)
def test_a_fill_that_integers_cannot_hold_is_refused(dtype, cval):
    with pytest.raises(ValueError, match=f"cval is {cval}, expected a whole number from .* for a batch of {dtype}"):
        transformed("BatchedRandZStackShiftd", images(dtype), 1.0, cval=cval)


FACTORS = [(1.0, 0.5, 0.5), (1.0, 2.0, 2.0), (0.5, 0.25, 1.5)]


@pytest.mark.parametrize("scale_factor", FACTORS)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_zoom_picks_labels_exactly(mode, dtype, scale_factor):
    x = images(dtype)
    found = vt.BatchedZoomd("x", scale_factor, mode)({"x": x})["x"]
    assert found.dtype == dtype
    assert torch.equal(found.double(), vt.BatchedZoomd("x", scale_factor, mode)({"x": x.double()})["x"])


def test_zoom_keeps_labels_that_no_float_holds():
    x = torch.full((1, 1, 2, 4, 4), 2**62 + 1)
    assert (vt.BatchedZoomd("x", 0.5, "nearest")({"x": x})["x"] == 2**62 + 1).all()


@pytest.mark.parametrize("scale_factor", FACTORS)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("mode", ["trilinear", "area"])
def test_zoom_interpolates_integers_in_floats(mode, dtype, scale_factor):
    x = images(dtype)
    found = vt.BatchedZoomd("x", scale_factor, mode)({"x": x})["x"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, vt.BatchedZoomd("x", scale_factor, mode)({"x": x.float()})["x"])
