"""The parts of a batch that are worked on at a time, and memory for the results.

A GPU gets all samples at once. A CPU gets them in blocks that stay in its cache, which is two to three times faster
than passing over the batch with every operation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

__all__ = ["blocks", "empty", "memory_format_of", "span"]

_BLOCK_BYTES = 2 << 20  # per thread


def blocks(mask: Tensor, data: Tensor, threads: int) -> Iterable[Tensor]:
    """Split the rows of a mask into what is worked on at a time.

    Parameters
    ----------
    mask : Tensor, shape (B,), bool
        Which samples, on the CPU.
    data : Tensor, shape (B, ...)
        The batch.
    threads : int
        How many work on a block.

    Returns
    -------
    iterable of Tensor
        Rows, on the CPU.
    """
    rows = mask.nonzero().squeeze(1)
    if data.device.type != "cpu" or not len(rows):
        return (rows,) if len(rows) else ()
    sample = max(data[:1].numel() * data.element_size(), 1)
    return rows.split(max(_BLOCK_BYTES * threads // sample, 1))


def span(rows: Tensor) -> slice | None:
    """Return the slice that stands for rows which follow one another, None for others."""
    first, last = rows[:1].tolist() + rows[-1:].tolist()
    return slice(first, last + 1) if last - first + 1 == len(rows) else None


def memory_format_of(data: Tensor) -> torch.memory_format:
    """Return channels_last(_3d) or contiguous."""
    channels_last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(data.ndim, torch.contiguous_format)
    if not data.is_contiguous() and data.is_contiguous(memory_format=channels_last):
        return channels_last
    return torch.contiguous_format


def empty(shape: tuple[int, ...], dtype: torch.dtype, like: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Make an empty tensor; on the CPU in numpy's memory: huge pages, filled in a third of the time."""
    if like.device.type != "cpu" or like.requires_grad:
        return torch.empty(shape, dtype=dtype, device=like.device, memory_format=memory_format)
    strides = torch.empty(shape, device="meta", memory_format=memory_format).stride()
    memory = np.empty(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(memory).view(dtype).as_strided(shape, strides)
