"""Terms of losses without negatives, which keep the dimensions of an embedding alive and different.

Bardes, Ponce, LeCun (VICReg), arXiv:2105.04906; Zbontar et al. (Barlow Twins), arXiv:2103.03230. All are computed in
float32 or better, also under autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from viscy_losses.functional.similarity import full_precision, widen

__all__ = ["covariance", "covariance_term", "cross_correlation", "off_diagonal", "variance_term"]


def off_diagonal(matrix: Tensor) -> Tensor:
    """List the entries of a square matrix beside its diagonal.

    Parameters
    ----------
    matrix : Tensor, shape (D, D)

    Returns
    -------
    Tensor, shape (D (D - 1),)
        Row by row; a view where memory allows.

    Examples
    --------
    >>> import torch
    >>> off_diagonal(torch.arange(9).reshape(3, 3))
    tensor([1, 2, 3, 5, 6, 7])
    """
    n = len(matrix)
    if matrix.shape != (n, n):
        raise ValueError(f"matrix: found shape {tuple(matrix.shape)}, expected a square one")
    # Without its last entry, the flat matrix falls into rows of n + 1 that begin on the diagonal.
    return matrix.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten() if n else matrix.flatten()


def covariance(embeddings: Tensor) -> Tensor:
    """Compute the covariance of the dimensions of embeddings.

    Parameters
    ----------
    embeddings : Tensor, shape (B, D), floating point

    Returns
    -------
    Tensor, shape (D, D)
        Unbiased; zeros for a single row.
    """
    with full_precision(embeddings):
        centred = _centred(embeddings)
        return centred.T @ centred / max(len(centred) - 1, 1)


def variance_term(embeddings: Tensor, target: float = 1.0, eps: float = 1e-4) -> Tensor:
    r"""Compute by how much standard deviations fall short of a target.

    :math:`\frac1D \sum_d \max(0, \gamma - \sqrt{\sigma_d^2 + \epsilon})` for unbiased variances.

    Parameters
    ----------
    embeddings : Tensor, shape (B, D), floating point
        A single row has variance 0.
    target : float, default 1.0
        :math:`\gamma`.
    eps : float, default 1e-4
        Keeps the gradient finite where a dimension is constant.

    Returns
    -------
    Tensor, shape ()
    """
    centred = _centred(embeddings)
    variance = centred.square().sum(dim=0) / max(len(centred) - 1, 1)
    return torch.relu(target - torch.sqrt(variance + eps)).mean()


def covariance_term(embeddings: Tensor) -> Tensor:
    r"""Compute how much dimensions tell twice: :math:`\frac1D \sum_{d \neq e} C_{de}^2` of the `covariance` C.

    Parameters
    ----------
    embeddings : Tensor, shape (B, D), floating point

    Returns
    -------
    Tensor, shape ()
    """
    return off_diagonal(covariance(embeddings)).square().sum() / embeddings.shape[1]


def cross_correlation(anchor: Tensor, positive: Tensor, eps: float = 1e-5) -> Tensor:
    r"""Correlate the dimensions of two views over a batch.

    Parameters
    ----------
    anchor, positive : Tensor, shape (B, D), floating point
    eps : float, default 1e-5
        Added to the variances, as batch normalisation does: a constant dimension correlates with nothing.

    Returns
    -------
    Tensor, shape (D, D)
        :math:`C_{de} = \frac1B \sum_b \hat a_{bd} \hat p_{be}` of dimensions with mean 0 and variance 1.
    """
    with full_precision(anchor):
        a, p = (_standardised(view, eps) for view in (anchor, positive))
        return a.T @ p / len(a)


def _centred(embeddings: Tensor) -> Tensor:
    rows = widen(embeddings)
    return rows - rows.mean(dim=0)


def _standardised(embeddings: Tensor, eps: float) -> Tensor:
    centred = _centred(embeddings)
    return centred * torch.rsqrt(centred.square().mean(dim=0) + eps)
