"""Pictures of images beside their reconstructions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from viscy_utils.pictures.log_images import detach_sample, render_images

__all__ = ["ReconstructionImages"]


class ReconstructionImages:
    """What the picture at the end of an epoch shows, collected batch by batch.

    Parameters
    ----------
    n_batches, n_samples : int
        Batches of an epoch, and samples of each, to show.
    """

    def __init__(self, n_batches: int, n_samples: int) -> None:
        self.n_batches, self.n_samples = n_batches, n_samples
        self._samples: list[list[NDArray]] = []

    def add(self, images: Tensor, reconstructions: Tensor, number: int) -> None:
        """Keep the first samples of a batch, the middle slice of (B, C, Z, Y, X), if it is one of the first."""
        if number < self.n_batches and self.n_samples:
            self._samples += detach_sample([images, reconstructions], self.n_samples)

    def render(self) -> NDArray[np.uint8] | None:
        """Draw what was collected, (H, W, 3), and forget it; None if there was nothing."""
        samples, self._samples = self._samples, []
        return render_images(samples, ["gray", "gray"]) if samples else None
