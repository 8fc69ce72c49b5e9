"""Embeddings of all processes, with exact gradients.

Every process contrasts its own rows with everybody's. Where processes average their gradients (as
``DistributedDataParallel`` does), the result is the gradient of one process with the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from viscy_losses.functional.masks import StackedViews, stack_views

__all__ = ["gather_rows", "gather_views", "world_size"]


def world_size() -> int:
    """Count the processes of the default group; 1 when there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Concatenate the rows of all processes in order of rank.

    Parameters
    ----------
    rows : Tensor, shape (B, ...)
        The number of rows may differ between processes.

    Returns
    -------
    Tensor, shape (sum of B, ...)
        The gradient of a row is summed over all processes that used it.
    int
        Position of this process's first row.
    """
    if world_size() == 1:
        return rows, 0
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    counts = torch.cat(sizes).tolist()
    return _GatherRows.apply(rows, counts), sum(counts[: dist.get_rank()])


def gather_views(anchor: Tensor, positive: Tensor, groups: Tensor | None = None) -> StackedViews:
    """Stack both views of the cells of all processes.

    Parameters
    ----------
    anchor, positive : Tensor, shape (B, D)
    groups : Tensor, shape (B,), optional

    Returns
    -------
    StackedViews
        Cells in order of rank; `ids` are those of this process. The same as `stack_views` where there is only one.
    """
    both, start = gather_rows(torch.stack([anchor, positive], dim=1))  # (n, 2, D)
    if groups is not None:
        groups, _ = gather_rows(groups.to(anchor.device))
    return stack_views(both[:, 0], both[:, 1], groups, slice(start, start + len(anchor)))


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        # Collectives want equal shapes: pad to the longest, cut afterwards.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad.split(ctx.counts)[dist.get_rank()], None
