"""A loss that looks at the foreground: squared error inside it, and overlap of its shape.

Kalinin et al., "Foreground-aware virtual staining for accurate 3D cell morphological profiling", arXiv:2507.05383.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from viscy_data.checks import Option, check_options, is_number
from viscy_data.errors import raise_all

__all__ = ["SpotlightLoss", "otsu_threshold", "tunable_sigmoid"]


class SpotlightLoss(nn.Module):
    r"""Squared error of the foreground, and a Dice loss of the prediction around the threshold.

    With a threshold :math:`\theta` of each image and channel of the target, the foreground is what lies above it. The
    prediction becomes a soft mask: :func:`tunable_sigmoid` of its distance to :math:`\theta`, cut at one unit and
    scaled to 0 .. 1. Targets should be normalised, so that a unit is a standard deviation or so.

    Parameters
    ----------
    lambda_mse : float, default 0.5
        Weight of the squared error; the Dice loss has the rest.
    sigmoid_k : float, default -0.95
        Between -1 and 1: steeper the lower it is.
    eps : float, default 1e-6
        Keeps the quotients finite. An image without foreground has no squared error.
    fg_threshold : float, optional
        One threshold for all images; by default Otsu's of each.

    Raises
    ------
    InputError
        If an option is out of range.
    """

    def __init__(
        self,
        lambda_mse: float = 0.5,
        sigmoid_k: float = -0.95,
        eps: float = 1e-6,
        fg_threshold: float | None = None,
    ) -> None:
        super().__init__()
        threshold_holds = fg_threshold is None or is_number(fg_threshold)
        options = [
            Option("lambda_mse", lambda_mse, is_number(lambda_mse, 0, 1), "a share from 0 to 1"),
            Option("sigmoid_k", sigmoid_k, is_number(sigmoid_k) and -1 < sigmoid_k < 1, "between -1 and 1"),
            Option("eps", eps, is_number(eps) and eps > 0, "more than 0"),
            Option("fg_threshold", fg_threshold, threshold_holds, "a number, or null for Otsu's threshold"),
        ]
        raise_all(check_options(type(self).__name__, options))
        self.lambda_mse, self.sigmoid_k, self.eps, self.fg_threshold = lambda_mse, sigmoid_k, eps, fg_threshold

    def forward(self, preds: Tensor, target: Tensor) -> Tensor:
        """Compare images (B, C, Z, Y, X); the mean over images and channels, a scalar."""
        images, true = preds.flatten(2).float(), target.flatten(2).float()  # (B, C, N)
        threshold = (
            otsu_threshold(true) if self.fg_threshold is None else torch.full_like(true[..., 0], self.fg_threshold)
        )
        threshold = threshold[..., None]
        foreground = (true > threshold).float()
        squared = ((images - true) ** 2 * foreground).sum(-1) / (foreground.sum(-1) + self.eps)
        soft = (tunable_sigmoid((images - threshold).clamp(-1, 1), self.sigmoid_k) + 1) / 2
        overlap = (2 * (soft * foreground).sum(-1) + self.eps) / (soft.sum(-1) + foreground.sum(-1) + self.eps)
        return (self.lambda_mse * squared + (1 - self.lambda_mse) * (1 - overlap)).mean()


def tunable_sigmoid(x: Tensor, k: float) -> Tensor:
    r"""Map -1 .. 1 onto itself by :math:`(x - k x) / (k - 2 k |x| + 1)`.

    Parameters
    ----------
    x : Tensor
    k : float
        Between -1 and 1: 0 is a straight line, lower values are steep around 0.

    Examples
    --------
    >>> tunable_sigmoid(torch.tensor([-1.0, 0.0, 0.5, 1.0]), 0.0).tolist()
    [-1.0, 0.0, 0.5, 1.0]
    """
    return (x - k * x) / (k - 2 * k * x.abs() + 1)


def otsu_threshold(values: Tensor, bins: int = 256) -> Tensor:
    """Choose the threshold between two classes whose means differ most, by Otsu's method on a histogram.

    Otsu, "A threshold selection method from gray-level histograms", IEEE TSMC 1979.

    Parameters
    ----------
    values : Tensor, shape (..., N)
    bins : int, default 256
        Of the histogram, from the smallest to the largest value of each row.

    Returns
    -------
    Tensor, shape (...)
        Centre of a bin; the value itself where all are equal.
    """
    exact = torch.float32 if values.device.type == "mps" else torch.float64  # which has no 64 bits
    rows = values.detach().reshape(-1, values.shape[-1]).to(exact)
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    width = (high - low) / bins
    number = ((rows - low) / torch.where(width > 0, width, 1)).long().clamp(max=bins - 1)
    counts = torch.zeros(len(rows), bins, dtype=rows.dtype, device=rows.device)
    counts.scatter_add_(1, number, torch.ones_like(rows))
    centres = low + (torch.arange(bins, device=rows.device) + 0.5) * width
    below, sum_below = counts.cumsum(1), (counts * centres).cumsum(1)
    above, sum_above = below[:, -1:] - below, sum_below[:, -1:] - sum_below
    between = below * above * (sum_below / below.clamp(min=1) - sum_above / above.clamp(min=1)) ** 2
    chosen = centres.gather(1, between.argmax(1, keepdim=True))
    return torch.where(width > 0, chosen, low).reshape(values.shape[:-1]).to(values.dtype)
