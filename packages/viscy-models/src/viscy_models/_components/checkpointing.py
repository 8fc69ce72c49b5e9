"""Gradient checkpointing that leaves no trace but time: same outputs, gradients and batch statistics.

Chen et al., "Training deep nets with sublinear memory cost", arXiv:1604.06174.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["CheckpointedSequential", "checkpoint_blocks", "checkpointed"]


def checkpointed(enabled: bool, module: nn.Module, *inputs: Any) -> Any:
    """Call a module, and when enabled forget its activations until the backward pass computes them again.

    Parameters
    ----------
    enabled : bool
        Whether to trade time for memory. Without gradients there is nothing to trade.
    module : torch.nn.Module
        What to call. Its random draws repeat, and its running statistics are updated once.
    *inputs
        Arguments of the module.

    Returns
    -------
    Any
        ``module(*inputs)``.
    """
    if not enabled or not torch.is_grad_enabled() or torch.compiler.is_exporting():
        return module(*inputs)
    if torch.compiler.is_compiling():  # the compiler updates statistics once by itself, and takes no contexts
        return checkpoint(module, *inputs, use_reentrant=False)
    return checkpoint(module, *inputs, use_reentrant=False, context_fn=partial(_contexts, module))


class CheckpointedSequential(nn.Sequential):
    """Modules in a row that keep only their inputs; names and numbers are those of ``torch.nn.Sequential``."""

    def forward(self, x: Tensor) -> Tensor:
        """Call the modules one after the other."""
        for module in self:
            x = checkpointed(True, module, x)
        return x


def checkpoint_blocks(backbone: nn.Module) -> None:
    """Make each residual block of a ResNet or ConvNeXt, of timm or MONAI, keep only its input.

    timm has a switch of its own, under which a ResNet updates its running statistics twice per step.

    Parameters
    ----------
    backbone : torch.nn.Module
        Modified in place; its state dict stays as it was.
    """
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Sequential) and (name == "blocks" or name.startswith("layer")):
                setattr(parent, name, CheckpointedSequential(OrderedDict(child.named_children())))


def _contexts(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Contexts of the first and of the repeated computation."""
    return nullcontext(), _frozen_statistics(module)


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    # The statistics take part in both computations, or autograd would miss them in the second one.
    tracking = [norm for norm in module.modules() if norm.training and getattr(norm, "track_running_stats", False)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in tracking]
    for norm in tracking:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(tracking, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
