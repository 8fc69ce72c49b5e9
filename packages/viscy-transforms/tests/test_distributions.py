"""How the parameters of random transforms are distributed, read off what they make of known images."""

from __future__ import annotations

import math

import pytest
import torch

import viscy_transforms as vt

N = 3000
# Exceeded once in a thousand times: the largest distance between a distribution function and that of N draws, and
# (3.3 standard deviations) a correlation of N pairs.
LARGEST_DISTANCE, LARGEST_CORRELATION = 1.95 / math.sqrt(N), 3.3 / math.sqrt(N)


def transformed(name, image, **arguments):
    """Transform N copies of an image (Z, Y, X)."""
    transform = getattr(vt, name)("x", prob=1.0, **arguments).set_random_state(seed=20)
    return transform({"x": image.expand(N, 1, *image.shape)})["x"][:, 0]


def ramp(axis, size=9):
    """Make an image (1, Y, X) whose value is the distance from the centre along an axis."""
    return (torch.arange(size) - (size - 1) / 2).expand(size, size).transpose(axis, -1).clone()[None]


def slopes(images):
    """Return the derivatives along y and x in the centre: what an affine map makes of a ramp stays one."""
    return images[:, 0, 5, 4] - images[:, 0, 4, 4], images[:, 0, 4, 5] - images[:, 0, 4, 4]


def point(*shape):
    image = torch.zeros(shape)
    image[tuple(length // 2 for length in shape)] = 1
    return image


def angle():
    along_y, along_x = slopes(transformed("BatchedRandAffined", ramp(-1), rotate_range=[(-0.4, 1.0), 0.0, 0.0]))
    return torch.atan2(-along_y, along_x), (-0.4, 1.0)


def magnification():
    _, along_x = slopes(transformed("BatchedRandAffined", ramp(-1), scale_range=[(1, 1), (1, 1), (0.8, 1.6)]))
    return 1 / along_x, (0.8, 1.6)


def shear():
    ranges = [0.0, 0.0, 0.0, (-0.3, 0.5), 0.0, 0.0]  # YX, in the reverse order
    along_y, _ = slopes(transformed("BatchedRandAffined", ramp(-1), shear_range=ranges))
    return torch.atan(along_y), (-0.3, 0.5)


def translation():
    out = transformed("BatchedRandAffined", ramp(-1), translate_range=[0.0, 0.0, 0.2])
    return -out[:, 0, 4, 4], (-0.2 * 9 * 9 / 8, 0.2 * 9 * 9 / 8)  # extents of size - 1, as published


def gamma():
    out = transformed("BatchedRandAdjustContrastd", torch.tensor([[[0.0, 0.5, 1.0]]]), gamma=(0.5, 3.0))
    return out[:, 0, 0, 1].log() / math.log(0.5), (0.5, 3.0)


def sigma(axis):
    arguments = {"sigma_x": 0.0, "sigma_y": 0.0, "sigma_z": 0.0, f"sigma_{'zyx'[axis]}": (0.6, 2.5)}
    shape = [1, 1, 1]
    shape[axis] = 31
    out = transformed("BatchedRandGaussianSmoothd", point(*shape), **arguments).flatten(1)
    return 0.5 / math.sqrt(2) / torch.erfinv(out[:, 15]), (0.6, 2.5)


def alpha():
    out = transformed("BatchedRandSharpend", point(3, 3, 3), alpha_range=(0.2, 0.7))
    return (out[:, 1, 1, 1] - 1) / 6, (0.2, 0.7)


def factor():
    return transformed("BatchedRandScaleIntensityd", torch.ones(1, 1, 1), factors=(-0.5, 0.2)).flatten(), (0.5, 1.2)


def offset():
    out = transformed("BatchedRandHistogramShiftd", torch.zeros(1, 1, 1), shift_range=(-0.3, 0.1))
    return out.flatten(), (-0.3, 0.1)


def noise():
    return transformed("BatchedRandGaussianNoised", torch.zeros(1, 40, 40), std=0.7).flatten(1).std(1), (0.0, 0.7)


PARAMETERS = {
    "rotation": angle,
    "scale": magnification,
    "shear": shear,
    "translation": translation,
    "gamma": gamma,
    "sigma x": lambda: sigma(2),
    "sigma y": lambda: sigma(1),
    "sigma z": lambda: sigma(0),
    "sharpening": alpha,
    "factor": factor,
    "offset": offset,
    "deviation of the noise": noise,
}


def correlation(one, other):
    return abs(torch.corrcoef(torch.stack([one, other]).double())[0, 1].item())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_uniform_over_their_range_and_independent_across_the_batch(name):
    values, (low, high) = PARAMETERS[name]()
    assert values.shape == (N,)
    found = (values.sort().values - low) / (high - low)
    assert (found - (torch.arange(N) + 0.5) / N).abs().max() < LARGEST_DISTANCE
    for lag in (1, 2, 7):
        assert correlation(values[:-lag], values[lag:]) < LARGEST_CORRELATION


def test_parameters_of_one_sample_are_independent_of_one_another():
    ranges = {"rotate_range": [0.5, 0.0, 0.0], "scale_range": (0.8, 1.25)}
    along_y, along_x = slopes(transformed("BatchedRandAffined", ramp(-1), **ranges))
    assert correlation(torch.atan2(along_y, along_x), torch.hypot(along_y, along_x)) < LARGEST_CORRELATION


@pytest.mark.parametrize("prob", [0.05, 0.3, 0.8])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("BatchedRandAffined", {"scale_range": (0.5, 0.8)}),
        ("BatchedRandAdjustContrastd", {"gamma": (2.0, 3.0)}),
        ("BatchedRandFlipd", {"spatial_axes": [2]}),
        ("BatchedRandScaleIntensityd", {"factors": (0.5, 0.9)}),
        ("BatchedRandHistogramShiftd", {"shift_range": (0.5, 0.9)}),
        ("BatchedRandGaussianNoised", {"std": 0.5}),
        ("BatchedRandGaussianSmoothd", {}),
        ("BatchedRandSharpend", {}),
        ("BatchedRandLocalPixelShufflingd", {"shuffle_prob": 1.0}),
        ("BatchedRand3DElasticd", {"sigma_range": (1.0, 1.0), "magnitude_range": (5.0, 9.0)}),
        ("RandInvertIntensityd", {}),
    ],
)
def test_as_many_samples_are_changed_as_the_probability_says(name, arguments, prob):
    x = torch.rand((1, 1, 3, 6, 6), generator=torch.Generator().manual_seed(0)).expand(N, -1, -1, -1, -1)
    transform = getattr(vt, name)("x", prob=prob, **arguments).set_random_state(seed=3)
    changed = (transform({"x": x})["x"] != x).flatten(1).any(1).double()
    deviation = math.sqrt(prob * (1 - prob) / N)
    assert abs(changed.mean().item() - prob) < 3.3 * deviation
    assert correlation(changed[:-1], changed[1:]) < LARGEST_CORRELATION


def chi_square(counts):
    """Return by how many standard deviations counts differ from equal ones more than chance would make them."""
    expected = counts.double().mean()
    freedom = len(counts) - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def test_shifts_along_z_are_equally_frequent():
    out = transformed("BatchedRandZStackShiftd", point(7, 1, 1), max_shift=3).flatten(1)
    assert chi_square(out.argmax(1).bincount(minlength=7)) < 4
    assert correlation(out.argmax(1)[:-1], out.argmax(1)[1:]) < LARGEST_CORRELATION


def test_places_of_crops_are_equally_frequent():
    x = torch.arange(3 * 5 * 6.0).reshape(1, 1, 3, 5, 6).expand(N, -1, -1, -1, -1)
    corner = vt.BatchedRandSpatialCrop((2, 3, 4)).set_random_state(seed=1)(x)[:, 0, 0, 0, 0].long()
    counts = corner.bincount(minlength=90).reshape(3, 5, 6)[:2, :3, :3].flatten()
    assert counts.sum() == N
    assert chi_square(counts) < 4


def test_each_axis_is_flipped_with_its_probability_independently():
    x = torch.arange(8.0).reshape(1, 1, 2, 2, 2).expand(N, -1, -1, -1, -1)
    corner = vt.BatchedRandFlip([0, 1, 2], prob=0.3).set_random_state(seed=2)(x)[:, 0, 0, 0, 0].long()
    flips = torch.stack([(corner >> bit) & 1 for bit in range(3)]).double()
    assert (flips.mean(1) - 0.3).abs().max() < 3.3 * math.sqrt(0.21 / N)
    assert torch.corrcoef(flips).fill_diagonal_(0).abs().max() < LARGEST_CORRELATION
