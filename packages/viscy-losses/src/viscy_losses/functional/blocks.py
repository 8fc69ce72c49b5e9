"""Functions of all pairs of rows, in exact blocks: memory for a block instead of for the whole matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["in_blocks"]

Block = Callable[[slice, Tensor, Tensor], tuple[Tensor, ...]]


def in_blocks(block: Block, query: Tensor, reference: Tensor, chunk_size: int | None = None) -> tuple[Tensor, ...]:
    """Apply a function to blocks of query rows and join the results.

    Parameters
    ----------
    block : callable
        From a slice, these rows of `query`, and all of `reference` to a tuple of tensors, an entry per row or pair. It
        may use parameters of a module; it must be deterministic.
    query : Tensor, shape (N, D)
    reference : Tensor, shape (M, D)
        May be `query` itself; where there is one block only, it gets the same object twice.
    chunk_size : int, optional
        Rows at a time. Value and gradient are the same; what `block` keeps for the backward pass is forgotten and
        computed again when needed. By default all rows at once, and nothing is computed twice.

    Returns
    -------
    tuple of Tensor
        Concatenated in order of the rows.
    """
    if chunk_size is None or chunk_size >= len(query):
        return block(slice(0, len(query)), query, reference)
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    starts = range(0, len(query), chunk_size)
    parts = [again(_cut, block, slice(at, min(at + chunk_size, len(query))), query, reference) for at in starts]
    return tuple(map(torch.cat, zip(*parts, strict=True)))


def _cut(block: Block, rows: slice, query: Tensor, reference: Tensor) -> tuple[Tensor, ...]:
    return block(rows, query[rows], reference)
