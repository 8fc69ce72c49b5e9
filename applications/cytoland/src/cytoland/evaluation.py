"""Segmentations of predicted images against those of true ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from viscy_utils.evaluation.metrics import POD_metric, VOI_metric, mean_average_precision

__all__ = ["SegmentationMetrics2D", "segmentation_metrics"]


class SegmentationMetrics2D(LightningModule):
    """Compare label images, of a `SegmentationDataModule`, in ``test``; nothing is trained.

    Logged as ``test_metrics/...`` are those of :func:`segmentation_metrics`.

    Parameters
    ----------
    aggregate_epoch : bool, default False
        Log the means over all frames, of which those do not count for which a metric is not defined; otherwise every
        frame by itself, which takes a logger.
    """

    def __init__(self, aggregate_epoch: bool = False) -> None:
        super().__init__()
        self.aggregate_epoch = aggregate_epoch
        self._rows: list[dict[str, float]] = []

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Compare the frames of a batch, (B, ..., Y, X)."""
        frames = (labels.reshape(-1, *labels.shape[-2:]) for labels in (batch["pred"], batch["target"]))
        for predicted, target in zip(*frames, strict=True):
            row = {f"test_metrics/{name}": value for name, value in segmentation_metrics(predicted, target).items()}
            if self.aggregate_epoch:
                self._rows.append(row)
            else:
                self.log_dict(row, on_step=True, on_epoch=False, batch_size=1)

    def on_test_epoch_end(self) -> None:
        """Log the means."""
        for name in self._rows[0] if self._rows else ():
            defined = [row[name] for row in self._rows if math.isfinite(row[name])]
            self.log(name, sum(defined) / len(defined) if defined else math.nan, sync_dist=True)
        self._rows = []


def segmentation_metrics(predicted: Tensor, target: Tensor) -> dict[str, float]:
    """Compare two label images.

    Parameters
    ----------
    predicted, target : Tensor of int, shape (Y, X)
        0 is background.

    Returns
    -------
    dict of str to float
        Of the foreground ``accuracy``, ``dice``, ``jaccard``, ``VOI`` (bits); of the objects ``precision``, ``recall``
        and ``F1`` of detection, ``mAP``, ``mAP_50``. NaN where there is nothing to divide by.

    Raises
    ------
    ImportError
        Without the extra ``metrics`` of viscy-utils.
    """
    first, second = predicted > 0, target > 0
    both, either = int((first & second).sum()), int((first | second).sum())
    precision, recall, f1 = POD_metric(target.cpu().numpy(), predicted.cpu().numpy())[3:]
    of_objects = mean_average_precision(predicted, target)
    return {
        "accuracy": float((first == second).double().mean()),
        "dice": 2 * both / (both + either) if either else math.nan,
        "jaccard": both / either if either else math.nan,
        "VOI": VOI_metric(target.cpu().numpy(), predicted.cpu().numpy())[0],
        "precision": precision,
        "recall": recall,
        "F1": f1,
        "mAP": _defined(of_objects["map"]),
        "mAP_50": _defined(of_objects["map_50"]),
    }


def _defined(value: Tensor) -> float:
    return float(value) if value >= 0 else math.nan  # -1 says that there is nothing to judge
