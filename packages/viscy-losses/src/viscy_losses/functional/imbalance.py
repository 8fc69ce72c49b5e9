r"""Classification where some classes are rare: focal cross-entropy and weights of classes.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from viscy_losses.functional.similarity import widen

__all__ = ["class_weights", "focal_cross_entropy", "focal_modulation"]


def focal_modulation(losses: Tensor, gamma: float) -> Tensor:
    r"""Turn down the losses of what is already told well: :math:`(1 - e^{-\ell})^\gamma\,\ell`.

    Parameters
    ----------
    losses : Tensor, any shape, float32 or float64
        Negative log-likelihoods :math:`\ell = -\log p`, 0 or larger.
    gamma : float
        0 or larger; 0 changes nothing.

    Returns
    -------
    Tensor, same shape
        With a finite gradient for any `gamma`, also where a loss is exactly 0.
    """
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma: found {gamma}, expected 0 or a larger number")
    wrong = -torch.expm1(-losses)  # 1 - p; the power of an exact 0 has no slope where gamma < 1
    return wrong.clamp(min=torch.finfo(losses.dtype).tiny) ** gamma * losses


def focal_cross_entropy(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    class_weight: Tensor | Sequence[float] | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    *,
    ignore_index: int = -100,
) -> Tensor:
    r"""Compute the focal loss of K exclusive classes: :math:`-w_y (1 - p_y)^\gamma \log p_y` [1]_.

    Parameters
    ----------
    logits : Tensor, shape (N, K, ...), floating point
        At least two classes; for one logit z of a binary task pass ``stack([zeros, z], dim=1)``.
    target : Tensor, shape (N, ...), integer or bool
        Class of each sample (or pixel), from 0 to K - 1, or `ignore_index`.
    gamma : float, default 2.0
        Focus on what is told badly; 0 is `torch.nn.functional.cross_entropy`.
    class_weight : Tensor or sequence of float, shape (K,), optional
        Weight w of each class, 0 or larger; see `class_weights`.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the sum of the weights of the targets, as `torch.nn.functional.cross_entropy` does.
    ignore_index : int, default -100
        Target of samples that do not count.

    Returns
    -------
    Tensor, shape () or (N, ...), float32 (float64 when that came in)
        Under autocast too. 0 where nothing counts.

    Raises
    ------
    ValueError
        For shapes, targets or options out of range.

    References
    ----------
    .. [1] Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002.

    Examples
    --------
    >>> import torch
    >>> logits, target = torch.zeros(1, 2), torch.tensor([1])
    >>> round(focal_cross_entropy(logits, target, gamma=2.0).item(), 4)  # (1/2)^2 log 2
    0.1733
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: found {reduction!r}, expected 'mean', 'sum' or 'none'")
    _check_targets(logits, target, ignore_index)
    counts = target != ignore_index
    known = target.long().masked_fill(~counts, 0)
    # What is ignored may be anything, NaN included, and NaN times 0 is NaN: it is replaced.
    cleaned = widen(logits).masked_fill(~counts[:, None], 0)
    log_likelihood = torch.log_softmax(cleaned, dim=1).gather(1, known[:, None]).squeeze(1)
    weight = counts.to(log_likelihood.dtype)
    if class_weight is not None:
        weight = weight * _checked_weight(class_weight, logits.shape[1]).to(log_likelihood)[known]
    losses = weight * focal_modulation(-log_likelihood, gamma)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / weight.sum().clamp(min=torch.finfo(losses.dtype).tiny)


def class_weights(
    counts: Tensor | Sequence[float], method: Literal["none", "inverse", "sqrt_inverse", "balanced"] = "inverse"
) -> Tensor:
    r"""Weigh classes by how rare they are.

    Parameters
    ----------
    counts : Tensor or sequence of numbers, shape (K,)
        Samples :math:`n_k` of each class, N in total.
    method : {"none", "inverse", "sqrt_inverse", "balanced"}, default "inverse"
        - "none": 1 for every class.
        - "inverse": :math:`N / (K n_k)`, so that all classes contribute alike.
        - "sqrt_inverse": the square root of that, a compromise: 123 to 1 becomes about 11 to 1.
        - "balanced": as in scikit-learn [1]_, the inverse over the K classes that *occur*; the others weigh 0.

    Returns
    -------
    Tensor, shape (K,), float32

    Raises
    ------
    ValueError
        For counts that are none, and for "inverse" and "sqrt_inverse" where a class does not occur.

    References
    ----------
    .. [1] `sklearn.utils.class_weight.compute_class_weight`, after King and Zeng, "Logistic Regression in Rare Events
       Data", Political Analysis 2001.

    Examples
    --------
    >>> class_weights([1, 3], "inverse")
    tensor([2.0000, 0.6667])
    """
    methods = ("none", "inverse", "sqrt_inverse", "balanced")
    if method not in methods:
        raise ValueError(f"class weight method: found {method!r}, expected one of {', '.join(map(repr, methods))}")
    n = torch.as_tensor(counts, dtype=torch.float64)
    if n.ndim != 1 or not len(n) or not torch.isfinite(n).all() or (n < 0).any() or n.sum() == 0:
        raise ValueError(f"counts: found {n.tolist()}, expected the number of samples of each class, 0 or larger")
    if method == "none":
        return torch.ones(len(n), device=n.device)
    occurs = n > 0
    if method != "balanced" and not occurs.all():
        missing = torch.nonzero(~occurs).flatten().tolist()
        raise ValueError(
            f"counts: no sample of class {', '.join(map(str, missing))}, so that {method!r} weights are infinite; "
            "use 'balanced', which weighs only the classes that occur, or leave the class out"
        )
    weights = torch.where(occurs, n.sum() / (occurs.sum() * n.clamp(min=torch.finfo(n.dtype).tiny)), 0.0)
    return (weights.sqrt() if method == "sqrt_inverse" else weights).float()


def _check_targets(logits: Tensor, target: Tensor, ignore_index: int) -> None:
    n_classes = logits.shape[1] if logits.ndim > 1 else 0
    if n_classes < 2 or target.shape != logits.shape[:1] + logits.shape[2:]:
        found = f"{tuple(logits.shape)} and {tuple(target.shape)}"
        raise ValueError(f"logits and target: found shapes {found}, expected (N, K, ...) with K > 1 and (N, ...)")
    if target.is_floating_point() or target.is_complex():
        raise ValueError(f"target: found {target.dtype}, expected integers, the class of each sample")
    if target.dtype == torch.bool:
        return
    outside = target[((target < 0) | (target >= n_classes)) & (target != ignore_index)]
    if len(outside):
        raise ValueError(f"target: found class {outside[0].item()}, expected 0 to {n_classes - 1} or {ignore_index}")


def _checked_weight(class_weight: Tensor | Sequence[float], n_classes: int) -> Tensor:
    weight = torch.as_tensor(class_weight)
    if weight.shape != (n_classes,) or not torch.isfinite(weight).all() or (weight < 0).any():
        raise ValueError(f"class_weight: found {weight.tolist()}, expected {n_classes} numbers, 0 or larger")
    return weight
