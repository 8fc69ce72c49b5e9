"""VICReg: variance, invariance, covariance."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import mse_loss

from viscy_losses import functional as F
from viscy_losses.base import BaseLoss
from viscy_losses.registry import LossRegistry

__all__ = ["VICRegLoss"]


@LossRegistry.register("vicreg")
class VICRegLoss(BaseLoss):
    r"""Draw views together without negatives, and keep the dimensions alive and different [1]_.

    :math:`\lambda\,\frac{1}{BD}\lVert A - P\rVert^2 + \frac{\mu}{2}(v(A) + v(P)) + \nu\,(c(A) + c(P))` with the hinge v
    on standard deviations (`variance_term`) and the squared covariances c (`covariance_term`). Embeddings are (B, D)
    each, and are not scaled. There are no negatives: labels have no part in it.

    Parameters
    ----------
    invariance_weight, variance_weight, covariance_weight : float, default 25.0, 25.0 and 1.0
        :math:`\lambda, \mu, \nu`, 0 or larger.
    gather_distributed : bool, default False
        Whether the terms are those of the batch of all processes, with exact gradients.

    References
    ----------
    .. [1] Bardes, Ponce, LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
       ICLR 2022, arXiv:2105.04906; weighted as in its published code.
    """

    def __init__(
        self,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        *,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        self.weights = {
            "invariance": invariance_weight,
            "variance": variance_weight,
            "covariance": covariance_weight,
        }
        for name, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"{name}_weight: found {weight}, expected 0 or a larger number")
        self.gather_distributed = gather_distributed

    def forward(self, anchor: Tensor, positive: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the weighted sum of the three terms.

        Parameters
        ----------
        anchor, positive : Tensor, shape (B, D), floating point
            Row i of both is the same cell. Of a single cell variances and covariances are 0.
        labels : Tensor, shape (B,), optional
            Not looked at.

        Returns
        -------
        dict
            ``"loss"``; its terms before weighting, ``"invariance"``, ``"variance"`` and ``"covariance"``, shape ().
        """
        F.check_views(anchor, positive, labels)
        if self.gather_distributed:
            anchor, positive = F.gather_views(anchor, positive).views.chunk(2)
        anchor, positive = F.widen(anchor), F.widen(positive)
        terms = {
            "invariance": mse_loss(anchor, positive),
            "variance": (F.variance_term(anchor) + F.variance_term(positive)) / 2,
            "covariance": F.covariance_term(anchor) + F.covariance_term(positive),
        }
        return {"loss": sum(self.weights[name] * term for name, term in terms.items()), **terms}
