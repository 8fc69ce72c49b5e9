"""Squared error of the hidden part of a stack."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["MaskedMSELoss"]


class MaskedMSELoss(nn.Module):
    """Mean squared error where the image was hidden.

    He et al., "Masked autoencoders are scalable vision learners", CVPR 2022.
    """

    def forward(self, preds: Tensor, original: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compare a reconstruction with the image.

        Parameters
        ----------
        preds, original : Tensor, shape (B, C, Z, Y, X)
        mask : Tensor of bool, shape (B, 1, Y, X), optional
            True where hidden, in all slices and channels; without one, everything counts.

        Returns
        -------
        Tensor, scalar
            Mean over the hidden voxels; 0, with gradients of 0, where nothing is hidden.
        """
        squared = (preds - original) ** 2
        if mask is None:
            return squared.mean()
        hidden = mask.unsqueeze(2).expand_as(squared).to(squared.dtype)  # (B, C, Z, Y, X)
        return (squared * hidden).sum() / hidden.sum().clamp(min=1)
