"""Contrast, scale, percentiles, negatives, normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import AdjustContrast

import viscy_transforms as vt
from viscy_transforms.typing import HCSStackIndex


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("retain", [False, True])
def test_gamma_is_that_of_monai_sample_by_sample(invert, retain, batch):
    found = vt.BatchedRandAdjustContrast(0.6, 1.0, invert, retain)(batch)
    peer = AdjustContrast(0.6, invert, retain)
    for sample, expected in zip(found, batch, strict=True):
        torch.testing.assert_close(sample, peer(expected).as_tensor(), rtol=1e-4, atol=1e-5)


def test_gamma_of_a_constant_image_is_the_image():
    x = torch.full((2, 1, 1, 3, 3), 7.0)
    assert torch.equal(vt.BatchedRandAdjustContrast(2.0, 1.0)(x), x)


@pytest.mark.parametrize(("gamma", "message"), [((1, 2, 3), "gamma is"), ("2", "gamma is"), ((0.0, 2.0), "above 0")])
def test_wrong_gamma_is_refused(gamma, message):
    with pytest.raises(ValueError, match=message):
        vt.BatchedRandAdjustContrast(gamma)


def test_scale_factors_lie_in_their_range_and_may_differ_by_channel():
    x = torch.ones(50, 2, 1, 2, 2)
    together = vt.BatchedRandScaleIntensity(0.3, 1.0)(x)
    assert (together >= 0.7).all()
    assert (together <= 1.3).all()
    assert torch.equal(together[:, 0], together[:, 1])
    apart = vt.BatchedRandScaleIntensity((0.3, 0.1), 1.0, channel_wise=True)(x)
    assert (apart[:, 0] != apart[:, 1]).any()
    assert (apart >= 1.1).all()


@pytest.mark.parametrize("channel_wise", [False, True])
def test_percentiles_are_those_of_numpy_sample_by_sample(channel_wise, batch):
    found = vt.BatchedScaleIntensityRangePercentiles(10, 95, -1.0, 3.0, channel_wise=channel_wise)(batch)
    for b in range(len(batch)):
        for part in ((b, 0), (b, 1)) if channel_wise else ((b,),):
            low, high = np.percentile(batch[part].numpy(), [10, 95])
            expected = (batch[part].numpy() - low) / (high - low) * 4 - 1
            np.testing.assert_allclose(found[part].numpy(), expected, atol=1e-4)


def test_a_constant_sample_does_not_spoil_its_neighbours(batch):
    spoiled = batch.clone()
    spoiled[3] = 99.0
    scale = vt.BatchedScaleIntensityRangePercentiles(0, 100, 0.0, 1.0)
    found, alone = scale(spoiled), scale(batch)
    others = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(found[others], alone[others])
    assert (found[3] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_percentiles_keep_the_dtype_and_take_strided_input(dtype, batch):
    scale = vt.BatchedScaleIntensityRangePercentilesd("x", 1, 99, 0.0, 1.0)
    out = scale({"x": batch.transpose(2, 4).to(dtype)})["x"]
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), scale({"x": batch.transpose(2, 4)})["x"], atol=0.05, rtol=0.05)


def test_percentiles_clip_and_convert(batch):
    out = vt.BatchedScaleIntensityRangePercentiles(20, 80, 0.0, 2.0, clip=True, dtype=np.float64)(batch[:, :, 0])
    assert out.dtype == torch.float64
    assert out.min() == 0
    assert out.max() == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 99, 0.0, 1.0), "expected 0 <= lower"),
        ((60, 50, 0.0, 1.0), "expected 0 <= lower"),
        ((1, 99, None, None, True), "clip=True needs"),
        ((1, 99, 0.0, None, False, True), "relative=True needs"),
    ],
)
def test_wrong_percentiles_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        vt.BatchedScaleIntensityRangePercentiles(*arguments)


def test_inversion_decides_per_sample_and_alike_for_all_keys(signed):
    x = signed((100, 1, 1, 2, 2))
    sample = {"x": x, "y": 2 * x}
    out = vt.RandInvertIntensityd(["x", "y", "absent"], prob=0.5).set_random_state(seed=0)(sample)
    assert sample["x"] is x
    assert torch.equal(out["y"], 2 * out["x"])
    inverted = (out["x"] == -x).flatten(1).all(1)
    assert torch.equal(out["x"][~inverted], x[~inverted])
    assert 25 < inverted.sum() < 75
    with pytest.raises(KeyError, match="absent"):
        vt.RandInvertIntensityd("absent", allow_missing_keys=False)(sample)


def meta(level="fov_statistics", **statistics):
    return {"x": {level: {name: torch.tensor(value) for name, value in statistics.items()}}}


@pytest.mark.parametrize("level", ["fov_statistics", "dataset_statistics", "timepoint_statistics"])
def test_each_sample_is_normalised_with_its_own_statistics(level, batch):
    mean, std = torch.arange(8.0), torch.arange(1.0, 9.0)
    sample = {"x": batch, "norm_meta": {"x": {level: {"mean": mean, "std": std}}}}
    out = vt.NormalizeSampled("x", level)(sample)
    for b in range(8):
        torch.testing.assert_close(out["x"][b], (batch[b] - b) / (b + 1))


def test_normalising_writes_nothing_that_was_given(batch):
    before, sample = batch.clone(), {"x": batch, "norm_meta": meta(mean=1.0, std=2.0)}
    out = vt.NormalizeSampled(["x"], "fov_statistics", remove_meta=True)(sample)
    assert torch.equal(batch, before)
    assert sample["x"] is batch
    assert "norm_meta" in sample
    assert "norm_meta" not in out


@pytest.mark.parametrize("std", [0.0, 1e-12])
def test_an_empty_image_does_not_explode(std):
    sample = {"x": torch.full((1, 1, 1, 2, 2), 5.0), "norm_meta": meta(mean=4.0, std=std)}
    assert (vt.NormalizeSampled("x", "fov_statistics")(sample)["x"] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_normalising_keeps_the_dtype(dtype, batch):
    sample = {"x": batch.to(dtype), "norm_meta": meta(mean=0.5, std=2.0)}
    assert vt.NormalizeSampled("x", "fov_statistics")(sample)["x"].dtype == dtype


@pytest.mark.parametrize(
    ("norm_meta", "found"),
    [
        (None, "channels in norm_meta: none"),
        ({"y": {}}, "channels in norm_meta: y"),
        (meta("dataset_statistics", mean=0.0, std=1.0), "levels in norm_meta: dataset_statistics"),
        (meta(mean=0.0), "statistic 'std' is not among mean"),
        ({"x": {"fov_statistics": {}}}, "statistic 'mean' is not among none"),
    ],
)
def test_missing_statistics_name_channel_level_and_command(norm_meta, found, batch):
    with pytest.raises(KeyError, match=f"no fov_statistics for channel 'x' .*{found}.*`viscy preprocess`"):
        vt.NormalizeSampled("x", "fov_statistics")({"x": batch, "norm_meta": norm_meta})
    with pytest.raises(KeyError, match="viscy preprocess"):
        vt.NormalizeSampled("x", "fov_statistics")({"x": batch})


def test_statistics_of_all_frames_are_chosen_from_by_the_time_of_the_sample(batch):
    frames = {str(t): {"mean": torch.tensor(float(t)), "std": torch.tensor(2.0)} for t in (0, 3)}
    norm_meta, index = {"x": {"timepoint_statistics": frames}}, HCSStackIndex("A/1/0", time=3, z=0)
    sample = {"x": batch[0], "norm_meta": norm_meta, "index": index}
    normalize = vt.NormalizeSampled("x", "timepoint_statistics")
    torch.testing.assert_close(normalize(sample)["x"], (batch[0] - 3) / 2)
    with pytest.raises(KeyError, match=r"channel 'x' \(time 1 .* not among 0, 3\).*`viscy preprocess`"):
        normalize({**sample, "index": HCSStackIndex("A/1/0", time=1, z=0)})
    with pytest.raises(KeyError, match="no timepoint_statistics for channel 'x'"):
        normalize({"x": batch[0], "norm_meta": norm_meta})


def test_statistics_of_another_batch_size_are_refused(batch):
    sample = {"x": batch, "norm_meta": meta(mean=[0.0, 1.0], std=[1.0, 1.0])}
    with pytest.raises(ValueError, match=r"statistics of shape \(2,\), expected one per sample of 8"):
        vt.NormalizeSampled("x", "fov_statistics")(sample)


def test_offsets_lie_in_their_range_and_are_one_per_sample():
    out = vt.BatchedRandHistogramShiftd("x", (-0.2, 0.3), prob=1.0)({"x": torch.zeros(50, 2, 1, 2, 2)})["x"]
    assert (out == out[:, :1, :1, :1, :1]).all()
    assert -0.2 <= out.min() < 0 < out.max() <= 0.3
