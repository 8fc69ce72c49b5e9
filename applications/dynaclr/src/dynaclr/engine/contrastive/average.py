"""A copy of a network whose weights follow slowly: the encoder of keys in MoCo, and a steadier one for prediction.

He et al., "Momentum contrast for unsupervised visual representation learning", CVPR 2020, arXiv:1911.05722; Polyak and
Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30 (1992).
"""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["check_momentum", "follow", "frozen_copy"]


def check_momentum(momentum: float) -> float:
    """Refuse a momentum outside [0, 1)."""
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum: found {momentum}, expected 0 or larger and less than 1, such as 0.99")
    return momentum


def frozen_copy(network: nn.Module) -> nn.Module:
    """Copy a network, without compilation, to follow it: its weights take no gradient."""
    return copy.deepcopy(getattr(network, "_orig_mod", network)).requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, momentum: float, *, buffers: bool) -> None:
    """Move the weights of a copy towards those of the network: ``a <- momentum * a + (1 - momentum) * w``.

    Parameters
    ----------
    average, network : nn.Module
        The copy, modified in place, and the original.
    momentum : float
        0 makes both equal.
    buffers : bool
        Whether to take over buffers such as the statistics of batch normalisation, as a copy needs that is not itself
        run in training.
    """
    torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in network.parameters()], 1 - momentum)
    if buffers:
        for kept, current in zip(average.buffers(), network.buffers(), strict=True):
            kept.copy_(current)
