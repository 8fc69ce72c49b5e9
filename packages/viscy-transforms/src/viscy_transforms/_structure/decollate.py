"""A batch becomes a list of samples."""

from __future__ import annotations

from monai.data import decollate_batch
from monai.transforms import Transform
from torch import Tensor

__all__ = ["Decollate"]


class Decollate(Transform):
    """Split a batch into a list of samples.

    Parameters
    ----------
    detach : bool, default True
        Whether to detach tensors.
    pad_batch : bool, default True
        Whether entries shorter than the batch are padded.
    fill_value : float, optional
        What they are padded with.
    """

    def __init__(self, detach: bool = True, pad_batch: bool = True, fill_value: float | None = None) -> None:
        self.detach, self.pad_batch, self.fill_value = detach, pad_batch, fill_value

    def __call__(self, data: Tensor) -> list[Tensor]:
        """Return the B samples of a tensor (B, ...)."""
        return decollate_batch(data, detach=self.detach, pad=self.pad_batch, fill_value=self.fill_value)
