"""What can be had without a network: each pixel as a weighted sum of its neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from torch.nn import functional as F

from viscy_data import SlidingWindowDataset

__all__ = ["LinearFilter"]

_RADIUS = 8  # pixels
_N_PIXELS = 40_000
_ALPHA = 10.0


@dataclass(frozen=True)
class LinearFilter:
    """A ridge regression of a pixel in the middle of a window on its neighbourhood in all slices.

    Parameters
    ----------
    weights : ndarray, shape (C, Z, K, K)
    intercept : float
    """

    weights: NDArray
    intercept: float

    @classmethod
    def fit(cls, windows: SlidingWindowDataset, *, seed: int = 0) -> LinearFilter:
        """Fit to random pixels of all windows, (C, Z, Y, X) to the middle slice of one target channel."""
        rng = np.random.default_rng(seed)
        n_each = -(-_N_PIXELS // len(windows))
        features, values = [], []
        for number in range(len(windows)):
            sample = windows[number]
            source, target = sample["source"].numpy(), sample["target"].numpy()[0]
            rows, columns = (rng.integers(0, size, n_each) for size in target.shape[1:])
            padded = np.pad(source, [(0, 0), (0, 0), (_RADIUS, _RADIUS), (_RADIUS, _RADIUS)], mode="reflect")
            around = sliding_window_view(padded, (2 * _RADIUS + 1, 2 * _RADIUS + 1), axis=(2, 3))  # (C, Z, Y, X, K, K)
            features.append(around[:, :, rows, columns].transpose(2, 0, 1, 3, 4).reshape(n_each, -1))
            values.append(target[len(target) // 2, rows, columns])
        model = Ridge(alpha=_ALPHA).fit(np.concatenate(features), np.concatenate(values))
        shape = (*source.shape[:2], 2 * _RADIUS + 1, 2 * _RADIUS + 1)
        return cls(model.coef_.reshape(shape).astype(np.float32), float(model.intercept_))

    def predict(self, source: torch.Tensor) -> torch.Tensor:
        """Predict the middle slice, (Y, X), of a window (C, Z, Y, X)."""
        image = F.pad(source.flatten(0, 1)[None], [_RADIUS] * 4, mode="reflect")
        kernel = torch.from_numpy(self.weights).flatten(0, 1)[None]
        return F.conv2d(image, kernel)[0, 0] + self.intercept
