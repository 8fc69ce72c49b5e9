"""Metrics of tests: means per channel, and label images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from cytoland import SegmentationMetrics2D
from cytoland.engine.metrics_tally import MetricsTally
from cytoland.evaluation import segmentation_metrics


def test_means_are_per_channel_and_leave_out_what_is_not_defined():
    rng = np.random.default_rng(0)
    target = rng.random((3, 2, 1, 12, 12))
    preds = target + rng.normal(0, 0.1, target.shape)
    preds[1, 0] = 0.5  # no correlation
    tally = MetricsTally()
    for sample in range(3):
        pair = (torch.from_numpy(images[sample : sample + 1]) for images in (preds, target))
        tally.add(*pair, ["Nuclei", "Membrane"])
    found = tally.take()

    def correlation(sample, channel):
        return np.corrcoef(preds[sample, channel].ravel(), target[sample, channel].ravel())[0, 1]

    assert found["pearson/Nuclei"] == pytest.approx(np.mean([correlation(s, 0) for s in (0, 2)]))
    assert found["pearson/Membrane"] == pytest.approx(np.mean([correlation(s, 1) for s in range(3)]))
    assert found["mse/Membrane"] == pytest.approx(((preds - target)[:, 1] ** 2).mean())
    assert {name.split("/")[0] for name in found} == {"mae", "mse", "pearson", "psnr", "ssim"}
    assert tally.take() == {}


def squares(*corners):
    labels = torch.zeros(24, 24, dtype=torch.int16)
    for number, (y, x) in enumerate(corners, start=1):
        labels[y : y + 6, x : x + 6] = number
    return labels


def test_label_images_are_compared_by_pixels_and_objects():
    pytest.importorskip("pycocotools")
    found = segmentation_metrics(squares((0, 0), (12, 12)), squares((0, 0), (12, 15)))
    both, either = 36 + 18, 72 + 18
    assert found["dice"] == pytest.approx(2 * both / (72 + 72))
    assert found["jaccard"] == pytest.approx(both / either)
    assert found["accuracy"] == pytest.approx(1 - (either - both) / 24**2)
    assert found["precision"] == found["recall"] == found["F1"] == 1  # centres are 3 pixels apart
    assert found["mAP_50"] == pytest.approx(0.5, abs=0.02)  # overlap of 1/3 does not count
    same = segmentation_metrics(*[squares((0, 0))] * 2)
    assert (same["VOI"], same["mAP"]) == (0, 1)
    empty = segmentation_metrics(squares(), squares())
    assert math.isnan(empty["dice"])
    assert math.isnan(empty["mAP"])


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_means_over_frames_are_logged(tmp_path):
    pytest.importorskip("pycocotools")
    pairs = [(squares((0, 0)), squares((0, 0))), (squares((0, 0)), squares((0, 3))), (squares(), squares())]
    frames = [{"pred": pred[None], "target": target[None]} for pred, target in pairs]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(default_root_dir=tmp_path, **quiet)
    [found] = trainer.test(
        SegmentationMetrics2D(aggregate_epoch=True), DataLoader(frames, batch_size=None), verbose=False
    )
    assert found["test_metrics/dice"] == pytest.approx((1 + 0.5) / 2)
