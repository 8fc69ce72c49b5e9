"""Samples of an epoch, drawn for the loggers that take pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor

from viscy_utils.pictures.log_images import detach_sample, image_sinks, render_images

__all__ = ["EpochSamples", "takes_pictures"]


class EpochSamples:
    """The first samples of the first batches of an epoch.

    Parameters
    ----------
    n_batches, n_samples : int
        Batches of an epoch, and samples of each, to show.
    cmaps : sequence of str, default ()
        See :func:`~viscy_utils.pictures.log_images.render_images`.
    """

    def __init__(self, n_batches: int, n_samples: int, cmaps: Sequence[str] = ()) -> None:
        self.n_batches, self.n_samples, self.cmaps = n_batches, n_samples, cmaps
        self._samples: list[list[NDArray]] = []

    def add(self, images: Sequence[Tensor], number: int) -> None:
        """Keep samples of a batch: a row for each, its images (B, C, Z, Y, X) side by side."""
        if number < self.n_batches:
            self._samples += detach_sample(images, self.n_samples)

    def take(self) -> NDArray[np.uint8] | None:
        """Draw what was collected, (H, W, 3), and forget it; None where there is nothing."""
        samples, self._samples = self._samples, []
        return render_images(samples, self.cmaps) if samples else None


def takes_pictures(module: LightningModule) -> bool:
    """Tell whether pictures of a step are wanted: on the first rank, by a logger, not in the sanity check."""
    trainer = module._trainer  # a step is also possible without one
    wanted = trainer is not None and trainer.is_global_zero and not trainer.sanity_checking
    return wanted and bool(image_sinks(module.loggers))
