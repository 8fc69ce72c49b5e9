"""Metrics of tests, sample by sample and channel by channel."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor

from viscy_utils.evaluation.image_metrics import image_metrics

__all__ = ["MetricsTally"]


class MetricsTally:
    """Means over the samples of a test for each channel; samples for which a metric is not defined do not count."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, preds: Tensor, target: Tensor, channels: Sequence[str]) -> None:
        """Judge a batch, (B, C, Z, Y, X)."""
        if preds.device.type == "mps":  # which has no numbers of 64 bits
            preds, target = preds.cpu(), target.cpu()
        for metric, values in image_metrics(preds, target).items():
            for channel, column in zip(channels, values.T.tolist(), strict=True):
                self._values[f"{metric}/{channel}"] += column

    def take(self) -> dict[str, float]:
        """Return the mean of every metric and channel, such as ``pearson/Nuclei``, and forget the samples."""
        means = {}
        for name, values in self._values.items():
            defined = [value for value in values if math.isfinite(value)]
            means[name] = sum(defined) / len(defined) if defined else math.nan
        self._values.clear()
        return means
