"""Absolute and squared difference, and dissimilarity of structure, in any mixture."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from viscy_data.checks import Option, check_options, is_number
from viscy_data.errors import InputError, raise_all
from viscy_utils.evaluation.ssim import ms_ssim_25d

__all__ = ["MixedLoss"]


class MixedLoss(nn.Module):
    r"""Mix of :math:`L_1`, :math:`L_2` and :math:`1 - \text{MS-SSIM}`.

    Zhao et al., "Loss functions for image restoration with neural networks", IEEE TCI 2017. The five scales of the
    structural similarity need images of at least 176 pixels in Y and X.

    Parameters
    ----------
    l1_alpha, l2_alpha, ms_dssim_alpha : float, default 0.5, 0.0 and 0.5
        Weights of mean absolute difference, mean squared difference and dissimilarity; those that are 0 cost nothing.

    Raises
    ------
    InputError
        If a weight is negative, or all are 0.
    """

    def __init__(self, l1_alpha: float = 0.5, l2_alpha: float = 0.0, ms_dssim_alpha: float = 0.5) -> None:
        super().__init__()
        weights = {"l1_alpha": l1_alpha, "l2_alpha": l2_alpha, "ms_dssim_alpha": ms_dssim_alpha}
        where = type(self).__name__
        options = [
            Option(name, value, is_number(value, 0), "a weight of at least 0") for name, value in weights.items()
        ]
        raise_all(check_options(where, options))
        if not any(weights.values()):
            raise InputError(where, field=", ".join(weights), found="0 for all", expected="a weight above 0")
        self.l1_alpha, self.l2_alpha, self.ms_dssim_alpha = l1_alpha, l2_alpha, ms_dssim_alpha

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        """Compare images (B, C, Z, Y, X); a scalar."""
        loss = preds.new_zeros(())
        if self.l1_alpha:
            loss = loss + self.l1_alpha * F.l1_loss(preds, target)
        if self.l2_alpha:
            loss = loss + self.l2_alpha * F.mse_loss(preds, target)
        if self.ms_dssim_alpha:
            loss = loss + self.ms_dssim_alpha * (1 - ms_ssim_25d(preds, target, clamp=True))
        return loss
