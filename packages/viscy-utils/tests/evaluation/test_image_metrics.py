"""Metrics of predicted images against numpy, scikit-image and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from viscy_utils.evaluation.image_metrics import image_metrics, pearson, psnr, ssim_per_channel
from viscy_utils.evaluation.ssim import ssim_25d


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 2, 16, 20, generator=generator) * torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1, 1)
    return target + torch.randn(target.shape, generator=generator), target


def test_each_sample_and_channel_is_judged_by_itself(images):
    found = image_metrics(*images)
    assert all(values.shape == (2, 3) for values in found.values())
    for b in range(2):
        for c in range(3):
            p, t = (image[b, c].double().numpy() for image in images)
            assert found["mae"][b, c].item() == pytest.approx(np.abs(p - t).mean())
            assert found["mse"][b, c].item() == pytest.approx(((p - t) ** 2).mean())
            assert found["pearson"][b, c].item() == pytest.approx(np.corrcoef(p.ravel(), t.ravel())[0, 1])
            one = ssim_25d(*(image[b : b + 1, c : c + 1] for image in images))
            assert found["ssim"][b, c].item() == pytest.approx(one.item())


def test_the_signal_to_noise_ratio_is_that_of_skimage(images):
    skimage = pytest.importorskip("skimage.metrics")
    preds, target = images
    for b in range(2):
        for c in range(3):
            p, t = (image[b, c].double().numpy() for image in images)
            expected = skimage.peak_signal_noise_ratio(t, p, data_range=t.max() - t.min())
            assert psnr(preds, target)[b, c].item() == pytest.approx(expected)
    np.testing.assert_allclose(psnr(target + 0.1, target, data_range=1.0), 20.0, rtol=1e-4)


def test_a_line_correlates_perfectly_and_equal_images_agree(images):
    _, target = images
    torch.testing.assert_close(pearson(3 * target + 2, target), torch.ones(2, 3, dtype=torch.float64))
    torch.testing.assert_close(pearson(-target, target), -torch.ones(2, 3, dtype=torch.float64))
    torch.testing.assert_close(ssim_per_channel(target, target), torch.ones(2, 3))
    assert (psnr(target, target) == math.inf).all()


def test_a_constant_image_has_no_correlation(images):
    preds, target = images
    assert pearson(torch.zeros_like(preds), target).isnan().all()


def test_other_shapes_are_refused(images):
    preds, target = images
    with pytest.raises(ValueError, match="expected one shape"):
        image_metrics(preds[:, :1], target)
