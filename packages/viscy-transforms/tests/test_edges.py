"""Edge cases: NaN, constant images, other layouts of memory, gradients, large batches, other devices."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch.autograd import gradcheck

import viscy_transforms as vt

# How far along an axis a pixel may reach, in the transforms below.
RANDOM = {
    "BatchedRandAffined": ({"rotate_range": [(0.2, 0.3), 0.0, 0.0]}, None),
    "BatchedRandFlipd": ({"spatial_axes": [2]}, None),
    "BatchedRandAdjustContrastd": ({"gamma": (1.5, 2.0)}, 0),
    "BatchedRandScaleIntensityd": ({"factors": (0.1, 0.5)}, 0),
    "BatchedRandHistogramShiftd": ({"shift_range": (0.1, 0.5)}, 0),
    "BatchedRandGaussianNoised": ({"std": 0.5}, 0),
    "BatchedRandSharpend": ({}, 1),
    "BatchedRandGaussianSmoothd": ({"sigma_x": 0.5, "sigma_y": 0.5, "sigma_z": 0.0}, 2),
    "BatchedRandLocalPixelShufflingd": ({"shuffle_prob": 0.5}, None),
    "BatchedRand3DElasticd": ({"sigma_range": (1.0, 2.0), "magnitude_range": (1.0, 2.0)}, None),
    "BatchedRandZStackShiftd": ({"max_shift": 1}, None),
}
FIELDS = ("BatchedRandGaussianNoised", "BatchedRand3DElasticd")
EACH = pytest.mark.parametrize("name", RANDOM)


def make(name, prob=1.0, seed=0):
    return getattr(vt, name)("x", prob=prob, **RANDOM[name][0]).set_random_state(seed=seed)


@pytest.mark.parametrize("name", [name for name, (_, reach) in RANDOM.items() if reach is not None])
def test_nan_spreads_no_further_than_the_support_of_the_filter(name, batch):
    holed = batch.clone()
    holed[3, 1, 1, 6, 6] = torch.nan
    out, clean = make(name)({"x": holed})["x"], make(name)({"x": batch})["x"]
    reach = RANDOM[name][1]
    near = torch.zeros_like(batch, dtype=torch.bool)
    near[3, 1, :, 6 - reach : 7 + reach, 6 - reach : 7 + reach] = True
    assert out[3, 1, 1, 6, 6].isnan()
    assert not out[~near].isnan().any()
    if name != "BatchedRandAdjustContrastd":  # which depends on the extremes
        torch.testing.assert_close(out[~near], clean[~near])


@EACH
def test_nan_stays_in_its_sample_and_channel(name, batch):
    holed = batch.clone()
    holed[3, 1, 1, 6, 6] = torch.nan
    spoiled = make(name)({"x": holed})["x"].isnan()
    assert not spoiled[[0, 1, 2, 4, 5, 6, 7]].any()
    assert not spoiled[3, 0].any()
    assert spoiled[3].sum() < 0.2 * spoiled[3, 1].numel()


def test_infinity_is_blurred_no_further_than_nan(batch):
    batch = batch.clone()
    batch[0, 0, 1, 6, 6] = torch.inf
    out = vt.BatchedRandGaussianSmooth(0.5, 0.5, 0.0, prob=1.0)(batch)
    assert (~out.isfinite()).nonzero()[:, 3:].sub(6).abs().max() == 2


@pytest.mark.parametrize("retain", [False, True])
def test_gamma_passes_over_nan(retain, batch):
    holed = batch.clone()
    holed[..., 0, :] = torch.nan
    contrast = vt.BatchedRandAdjustContrast(2.0, 1.0, retain_stats=retain)
    torch.testing.assert_close(contrast(holed)[..., 1:, :], contrast(batch[..., 1:, :]))


def test_percentiles_pass_over_nan(batch):
    holed = batch.clone()
    holed[2, :, :, :5] = torch.nan
    found = vt.BatchedScaleIntensityRangePercentiles(10, 95, 0.0, 1.0)(holed)
    for sample, original in zip(found, holed, strict=True):
        low, high = np.nanpercentile(original.numpy(), [10, 95])
        np.testing.assert_allclose(sample.numpy(), (original.numpy() - low) / (high - low), atol=1e-5)


@EACH
def test_constant_images_stay_finite(name):
    for value in (0.0, 3.0):
        assert make(name)({"x": torch.full((2, 1, 3, 8, 8), value)})["x"].isfinite().all()


@EACH
@pytest.mark.parametrize("prob", [0.5, 1.0])
def test_memory_format_is_kept(name, prob, batch):
    x = batch.contiguous(memory_format=torch.channels_last_3d)
    out = make(name, prob)({"x": x})["x"]
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(out, make(name, prob)({"x": batch})["x"].contiguous())


@EACH
def test_one_sample_and_one_slice(name, batch):
    assert make(name)({"x": batch[:1, :, :1]})["x"].shape == (1, 2, 1, 12, 12)


@EACH
@pytest.mark.parametrize("prob", [0.6, 1.0])
def test_large_batches_are_worked_on_in_parts_that_fit_together(name, prob, signed):
    x = signed((6, 2, 3, 256, 256))  # 1.5 MiB a sample
    sample = {"x": x, "y": x.clone()}
    transform = make(name, prob)
    transform.keys = ("x", "y")
    transform.transform.block_bytes = 2 << 20
    out = transform(sample)
    assert torch.equal(out["x"], out["y"])
    if name not in FIELDS:
        whole = make(name, prob)({"x": x[..., :64]})["x"]
        assert (out["x"] != x).flatten(1).any(1).tolist() == (whole != x[..., :64]).flatten(1).any(1).tolist()
    noise = (out["x"] - x).flatten(1)
    if name == "BatchedRandGaussianNoised":
        noise = noise[noise.abs().amax(1) > 0]
        assert (np.corrcoef(noise.numpy()) - np.eye(len(noise))).max() < 0.02


@EACH
@pytest.mark.parametrize("prob", [0.5, 1.0])
def test_gradients_are_those_of_the_mathematics(name, prob, signed):
    x = signed((2, 1, 2, 3, 3)).double().requires_grad_()
    transform = make(name, prob, seed=5)
    transform.transform.randomize(x)
    assert gradcheck(lambda batch: transform.transform(batch, randomize=False), x)


def test_gradients_of_percentiles_restored_contrast_zoom_and_crop(signed):
    x = signed((2, 1, 2, 4, 4)).double().requires_grad_()
    assert gradcheck(vt.BatchedScaleIntensityRangePercentiles(10, 90, 0.0, 1.0), x)
    assert gradcheck(vt.BatchedRandAdjustContrast(2.0, 1.0, invert_image=True, retain_stats=True), x)
    assert gradcheck(vt.BatchedZoom((1, 0.5, 0.5), "trilinear"), x)
    assert gradcheck(vt.BatchedCenterSpatialCrop(2), x)


@EACH
def test_a_generator_given_fixes_the_outcome(name, batch):
    transform = make(name, prob=0.5)
    outs = [transform.set_random_state(generator=torch.Generator().manual_seed(7))({"x": batch})["x"] for _ in "ab"]
    assert torch.equal(*outs)


# What takes batches and is not random, or only moves a window or a sign.
FURTHER = {
    "BatchedRandSpatialCropd": {"roi_size": (0, 5, 4)},
    "BatchedCenterSpatialCropd": {"roi_size": (0, 5, 4)},
    "BatchedScaleIntensityRangePercentilesd": {"lower": 1, "upper": 99, "b_min": 0.0, "b_max": 1.0},
    "BatchedZoomd": {"scale_factor": (1.0, 0.5, 0.5), "mode": "trilinear"},
    "NormalizeSampled": {"level": "fov_statistics"},
    "RandInvertIntensityd": {"prob": 1.0},
}
EACH_FURTHER = pytest.mark.parametrize("name", FURTHER)


def further(name, x, key="x"):
    stats = {key: {"fov_statistics": {"mean": torch.full((len(x),), 0.1), "std": torch.full((len(x),), 2.0)}}}
    transform = getattr(vt, name)(key, **FURTHER[name])
    if hasattr(transform, "set_random_state"):
        transform.set_random_state(seed=0)
    return transform({key: x, "norm_meta": stats})[key]


@EACH_FURTHER
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_further_dtypes_are_kept(name, dtype, batch):
    out = further(name, batch.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), further(name, batch), atol=0.02, rtol=0.02)


@EACH_FURTHER
def test_further_memory_formats_are_kept(name, batch):
    out = further(name, batch.contiguous(memory_format=torch.channels_last_3d))
    assert out.stride(1) == 1
    torch.testing.assert_close(out.contiguous(), further(name, batch).contiguous())


@EACH_FURTHER
def test_further_nan_stays_where_it_is(name, batch):
    holed = batch.clone()
    holed[3, 1, :, 6, 6] = torch.nan
    spoiled = further(name, holed).isnan()
    assert not spoiled[[0, 1, 2, 4, 5, 6, 7]].any()
    assert not spoiled[3, 0].any()
    assert (spoiled[3, 1].sum((-2, -1)) <= 1).all()


@EACH_FURTHER
def test_further_constant_images_and_gradients_stay_finite(name):
    x = torch.full((2, 1, 3, 8, 8), 3.0, requires_grad=True)
    out = further(name, x)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()


@EACH_FURTHER
def test_further_samples_are_alone_and_slices_single(name, batch):
    alone = further(name, batch[:1, :, :1])
    assert alone.shape[:3] == (1, 2, 1)
    if name != "BatchedRandSpatialCropd":
        torch.testing.assert_close(alone, further(name, batch[:, :, :1])[:1])


@pytest.mark.parametrize(
    "name", [name for name in vt.__all__ if name.endswith("d") and name not in ("NormalizeSampled", "StackChannelsd")]
)
def test_no_keys_are_refused(name):
    arguments = {**{key: value for key, (value, _) in RANDOM.items()}, **FURTHER}.get(name, {})
    needed = {
        "RandAdjustContrastd": {"prob": 1.0, "gamma": 2.0},
        "RandAffined": {"prob": 1.0, "rotate_range": 0.1, "shear_range": 0.0, "scale_range": 0.0},
        "RandFlipd": {"prob": 1.0, "spatial_axis": 0},
        "RandGaussianNoised": {"prob": 1.0, "mean": 0.0, "std": 0.1},
        "RandGaussianSmoothd": {"prob": 1.0, "sigma_x": 1.0, "sigma_y": 1.0, "sigma_z": 1.0},
        "RandScaleIntensityd": {"prob": 1.0, "factors": 0.1},
        "RandSpatialCropd": {"roi_size": 4},
        "CenterSpatialCropd": {"roi_size": 4},
        "RandWeightedCropd": {"w_key": "w", "spatial_size": (1, 4, 4)},
        "ToDeviced": {"device": "cpu"},
        "TiledSpatialCropSamplesd": {"roi_size": (1, 4, 4), "num_samples": 1},
        "ScaleIntensityRangePercentilesd": FURTHER["BatchedScaleIntensityRangePercentilesd"],
    }
    with pytest.raises(ValueError, match="non empty"):
        getattr(vt, name)([], **needed.get(name, arguments))


def test_parts_of_a_large_batch_are_each_what_they_should_be():
    x = torch.arange(6 * 3 * 512.0 * 512).reshape(6, 1, 3, 512, 512) / 2**22  # 3 MiB a sample
    torch.testing.assert_close(vt.BatchedRandScaleIntensity((0.5, 0.5), 1.0)(x), 1.5 * x)
    shifted = vt.BatchedRandHistogramShiftd("x", (0.5, 0.5), 1.0)({"x": x.half()})["x"]
    torch.testing.assert_close(shifted, (x.half().float() + 0.5).half())
    inverted = vt.RandInvertIntensityd("x", 0.5).set_random_state(seed=0)({"x": x})["x"]
    signs = (inverted / x.clamp(min=1e-9)).flatten(1)[:, -1]
    assert set(signs.tolist()) == {1.0, -1.0}
    assert torch.equal(inverted, x * signs.reshape(-1, 1, 1, 1, 1))
    for sample, window in zip(x[:, 0], vt.BatchedRandSpatialCrop((2, 300, 400))(x)[:, 0], strict=True):
        z, y, column = (sample == window[0, 0, 0]).nonzero()[0].tolist()
        assert torch.equal(sample[z : z + 2, y : y + 300, column : column + 400], window)


def test_gradients_pass_through_the_parts_of_a_large_batch():
    x = torch.ones(4, 1, 3, 512, 512, requires_grad=True)
    out = vt.BatchedRandScaleIntensity((0.5, 0.5), 0.5).set_random_state(seed=0)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    assert set(out.detach().flatten(1)[:, 0].tolist()) == {1.0, 1.5}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_windows_of_large_samples_keep_memory_format_and_pass_gradients(memory_format):
    x = 1 + torch.rand(3, 2, 3, 256, 256).contiguous(memory_format=memory_format)
    crop = vt.BatchedRandSpatialCrop((2, 100, 120)).set_random_state(seed=0)
    out = crop(x)
    assert out.is_contiguous(memory_format=memory_format)
    leaf = x.clone().requires_grad_()
    same = crop(leaf, randomize=False)
    assert torch.equal(same, out)
    (same * same).sum().backward()
    seen = leaf.grad != 0
    assert seen.flatten(1).sum(1).tolist() == [2 * 2 * 100 * 120] * 3
    assert torch.equal(leaf.grad[seen], 2 * x[seen])


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, size) for size in (4, 3, 4, 6, 6))),
    axes=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int16, torch.bool]),
    prob=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_flipping_twice_with_one_draw_restores_everything(shape, axes, dtype, prob, seed):
    x = (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 5).to(dtype)
    flip = vt.BatchedRandFlip(axes, prob).set_random_state(seed=seed)
    once = flip(x)
    assert once.dtype == dtype
    assert torch.equal(flip(once, randomize=False), x)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 9), less=st.integers(0, 8))
def test_padding_a_centre_crop_restores_the_centre(size, less):
    roi = max(size - less, 1)
    x = torch.arange(1.0, size + 1).reshape(1, 1, 1, 1, size)
    before = size // 2 - roi // 2
    padded = torch.nn.functional.pad(vt.BatchedCenterSpatialCrop((1, 1, roi))(x), (before, size - roi - before))
    kept = padded != 0
    assert kept.sum() == roi
    assert torch.equal(padded[kept], x[kept])
