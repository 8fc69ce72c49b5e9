"""Blur and noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import viscy_transforms as vt

PAD = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def blurred(line, sigma, border, truncated=4.0):
    """Blur one line by the definition: a Gaussian integrated over pixels, cut off, normalised."""
    radius = int(max(sigma * truncated, 0.5) + 0.5)
    edge = [math.erf((i - 0.5) / sigma / math.sqrt(2)) for i in range(-radius, radius + 2)]
    kernel = np.diff(edge) / np.sum(np.diff(edge))
    return np.convolve(np.pad(line, radius, mode=PAD[border]), kernel, mode="valid")


@pytest.mark.parametrize("border", PAD)
@pytest.mark.parametrize(("axis", "name"), [(4, "sigma_x"), (3, "sigma_y"), (2, "sigma_z")])
def test_each_axis_is_convolved_with_its_own_gaussian(border, axis, name, signed):
    x = signed((2, 2, 9, 9, 9))
    sigmas = {"sigma_x": 0.0, "sigma_y": 0.0, "sigma_z": 0.0, name: 0.9}
    found = vt.BatchedRandGaussianSmooth(**sigmas, prob=1.0, border_type=border)(x)
    expected = np.apply_along_axis(blurred, axis, x.numpy(), 0.9, border)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_kernel_may_be_longer_than_the_image(signed):
    x = signed((1, 1, 3, 5, 5))
    for border in PAD:
        out = vt.BatchedRandGaussianSmooth(4.0, 4.0, 4.0, prob=1.0, border_type=border)(torch.ones_like(x))
        if border != "constant":
            torch.testing.assert_close(out, torch.ones_like(x))


def test_widths_differ_between_samples_and_do_not_depend_on_each_other(signed):
    x = signed((1, 1, 1, 1, 40)).repeat(6, 1, 1, 1, 1)
    smooth = vt.BatchedRandGaussianSmooth((0.3, 3.0), 0.0, 0.0, prob=1.0).set_random_state(seed=0)
    out = smooth(x)[:, 0, 0, 0]
    roughness = out.diff(dim=1).square().mean(1)
    assert len(roughness.unique()) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma_y": -1.0}, "sigma_y is -1.0"),
        ({"sigma_x": (1.0, 2.0, 3.0)}, "sigma_x is"),
        ({"truncated": 0.0}, "truncated is 0.0"),
        ({"border_type": "mirror"}, "border_type is 'mirror', expected one of constant"),
    ],
)
def test_wrong_blur_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        vt.BatchedRandGaussianSmooth(**arguments)


def test_noise_patterns_of_samples_are_independent():
    noise = vt.BatchedRandGaussianNoise(1.0, std=1.0, sample_std=False)(torch.zeros(6, 1, 4, 16, 16)).flatten(1)
    off_diagonal = np.corrcoef(noise.numpy()) - np.eye(6)
    assert np.abs(off_diagonal).max() < 0.15  # 1024 pixels: standard deviation 0.03


def test_noise_has_the_mean_and_deviation_asked_for():
    noise = vt.BatchedRandGaussianNoise(1.0, mean=2.0, std=0.5, sample_std=False)(torch.zeros(4, 1, 4, 32, 32))
    assert noise.mean() == pytest.approx(2.0, abs=0.05)
    assert noise.std() == pytest.approx(0.5, abs=0.05)


def test_noise_converts_only_when_asked(batch):
    assert vt.BatchedRandGaussianNoise(1.0, dtype=np.float64)(batch).dtype == torch.float64
    assert vt.BatchedRandGaussianNoise(0.0, dtype=np.float64)(batch).dtype == torch.float64
    with pytest.raises(ValueError, match="std is -1"):
        vt.BatchedRandGaussianNoise(std=-1.0)


def test_sharpening_is_one_convolution_per_channel(batch):
    kernel = torch.zeros(2, 1, 3, 3, 3)
    kernel[:, 0, 1, 1, 1] = 7
    for offset in ((0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2)):
        kernel[:, 0, *offset] = -1
    expected = 0.7 * batch + 0.3 * torch.nn.functional.conv3d(batch, kernel, padding=1, groups=2)
    found = vt.BatchedRandSharpend("x", (0.3, 0.3), prob=1.0)({"x": batch})["x"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_sharpening_keeps_flat_regions_of_a_single_slice():
    found = vt.BatchedRandSharpend("x", prob=1.0)({"x": torch.ones(2, 1, 1, 5, 5)})["x"]
    torch.testing.assert_close(found[..., 1:-1, 1:-1], torch.ones(2, 1, 1, 3, 3))


def test_shuffling_permutes_voxels_near_their_place_alike_in_all_channels():
    x = torch.arange(6 * 7 * 8.0).reshape(1, 1, 6, 7, 8).repeat(5, 2, 1, 1, 1)
    shuffle = vt.BatchedRandLocalPixelShufflingd("x", patch_size=2, shuffle_prob=0.05, prob=1.0)
    found = shuffle.set_random_state(seed=0)({"x": x})["x"]
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found.flatten(2).sort(-1).values, x.flatten(2))
    moved = found != x
    # Two cubes of eight voxels at most.
    assert 0 < moved[:, 0].flatten(1).sum(1).max() <= 16


def test_wrong_shuffling_is_refused():
    with pytest.raises(ValueError, match="patch_size is 0"):
        vt.BatchedRandLocalPixelShufflingd("x", patch_size=0)
    with pytest.raises(ValueError, match="shuffle_prob is 2"):
        vt.BatchedRandLocalPixelShufflingd("x", shuffle_prob=2)


def test_noise_of_single_images_is_seeded_and_keeps_the_dtype(batch):
    for noise in (
        vt.RandGaussianNoiseTensor(1.0, std=0.5),
        lambda x: vt.RandGaussianNoiseTensord("x", 1.0).set_random_state(seed=1)({"x": x})["x"],
    ):
        assert noise(batch[0].half()).dtype == torch.float16
    seeded = [vt.RandGaussianNoiseTensord(["x", "y"], 1.0).set_random_state(seed=1) for _ in range(2)]
    one, two = (transform({"x": batch[0], "y": batch[0]}) for transform in seeded)
    assert torch.equal(torch.as_tensor(one["x"]), torch.as_tensor(two["y"]))
    assert not torch.equal(torch.as_tensor(one["x"]), batch[0])
