"""Losses of predicted images against closed forms and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from viscy_data.errors import InputError
from viscy_utils.evaluation.metrics import ms_ssim_25d
from viscy_utils.losses import MixedLoss, SpotlightLoss
from viscy_utils.losses.spotlight import otsu_threshold, tunable_sigmoid


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 1, 2, 176, 176, generator=generator)
    return target + 0.1 * torch.randn(target.shape, generator=generator), target


def test_a_mixture_is_the_sum_of_its_parts(images):
    preds, target = images
    l1, l2 = (preds - target).abs().mean(), ((preds - target) ** 2).mean()
    structure = 1 - ms_ssim_25d(preds, target, clamp=True)
    torch.testing.assert_close(MixedLoss()(preds, target), 0.5 * l1 + 0.5 * structure)
    torch.testing.assert_close(MixedLoss(0.2, 3.0, 0.0)(preds, target), 0.2 * l1 + 3 * l2)
    assert MixedLoss()(target, target).item() == pytest.approx(0, abs=1e-5)


def test_parts_without_weight_are_not_computed():
    small = torch.zeros(1, 1, 1, 8, 8)  # too small for the structural similarity
    assert MixedLoss(1.0, 0.0, 0.0)(small, small + 2).item() == 2
    with pytest.raises(ValueError, match="at least the window"):
        MixedLoss()(small, small)


@pytest.mark.parametrize(("weights", "word"), [((0, 0, 0), "above 0"), ((-1, 0, 1), "l1_alpha")])
def test_weights_that_make_no_loss_are_refused(weights, word):
    with pytest.raises(InputError, match=word):
        MixedLoss(*weights)


def spotlight(preds, target, threshold, lam, k, eps):
    """Compute the loss of one image pixel by pixel."""
    n = squared = hits = soft_sum = 0.0
    for p, t in zip(preds.flatten().tolist(), target.flatten().tolist(), strict=True):
        x = min(max(p - threshold, -1), 1)
        soft = ((x - k * x) / (k - 2 * k * abs(x) + 1) + 1) / 2
        soft_sum += soft
        if t > threshold:
            n, squared, hits = n + 1, squared + (p - t) ** 2, hits + soft
    dice = (2 * hits + eps) / (soft_sum + n + eps)
    return lam * squared / (n + eps) + (1 - lam) * (1 - dice)


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_spotlight_is_that_of_a_loop_over_pixels(threshold):
    skimage = pytest.importorskip("skimage.filters")
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(2, 3, 2, 6, 7, generator=generator)
    preds = target + 0.5 * torch.randn(target.shape, generator=generator)
    expected = []
    for b in range(2):
        for c in range(3):
            cut = skimage.threshold_otsu(target[b, c].numpy()) if threshold is None else threshold
            expected.append(spotlight(preds[b, c], target[b, c], cut, 0.4, -0.9, 1e-6))
    found = SpotlightLoss(lambda_mse=0.4, sigmoid_k=-0.9, fg_threshold=threshold)(preds, target)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_an_image_without_foreground_has_a_finite_loss_with_gradients():
    preds = torch.zeros(1, 1, 1, 4, 4, requires_grad=True)
    loss = SpotlightLoss()(preds, torch.zeros(1, 1, 1, 4, 4))
    loss.backward()
    assert math.isfinite(loss.item())
    assert torch.isfinite(preds.grad).all()


def test_the_threshold_is_that_of_skimage():
    skimage = pytest.importorskip("skimage.filters")
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(0, 1, (4, 300)), rng.normal(5, 1, (4, 100))], axis=1)
    expected = [skimage.threshold_otsu(row) for row in rows]
    np.testing.assert_allclose(otsu_threshold(torch.from_numpy(rows)).numpy(), expected, rtol=1e-9)
    assert otsu_threshold(torch.full((2, 5), 3.0)).tolist() == [3.0, 3.0]


def test_the_sigmoid_is_odd_and_keeps_its_ends():
    x = torch.linspace(-1, 1, 21)
    for k in (-0.95, 0.0, 0.5):
        y = tunable_sigmoid(x, k)
        torch.testing.assert_close(y, -y.flip(0))
        torch.testing.assert_close(y[[0, -1]], torch.tensor([-1.0, 1.0]))
        assert (y.diff() > 0).all()


@pytest.mark.parametrize("options", [{"lambda_mse": 2}, {"sigmoid_k": -1}, {"eps": 0}, {"fg_threshold": "otsu"}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        SpotlightLoss(**options)
