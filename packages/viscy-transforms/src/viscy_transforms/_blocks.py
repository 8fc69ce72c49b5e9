"""The parts of a batch that are worked on at a time, and memory for the results.

A GPU gets all samples at once. A CPU gets them in blocks that stay in its cache, which is two to three times faster
than passing over the batch with every operation.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["blocks", "empty", "memory_format_of", "one_by_one"]

_WORTH_A_CALL = 1 << 18  # bytes


def blocks(mask: Tensor, data: Tensor, block_bytes: int) -> list[slice | Tensor]:
    """Split the rows of a mask into what is worked on at a time.

    Parameters
    ----------
    mask : Tensor, shape (B,), bool
        Which samples, on the CPU.
    data : Tensor, shape (B, ...)
        The batch.
    block_bytes : int
        Size of a block on the CPU; it holds one sample at least.

    Returns
    -------
    list of slice or Tensor
        Neighbouring samples as a slice, others as a tensor of rows, on the CPU.
    """
    rows = mask.nonzero().squeeze(1).numpy()
    n = max(block_bytes // max(_sample_bytes(data), 1) if data.device.type == "cpu" else len(rows), 1)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if one_by_one(data) else [rows]
    return [_as_slice(run[start : start + n]) for run in runs for start in range(0, len(run), n)]


def one_by_one(data: Tensor) -> bool:
    """Say whether a call for each sample costs less than gathering samples: on a CPU, when they are large."""
    return data.device.type == "cpu" and _sample_bytes(data) >= _WORTH_A_CALL


def _sample_bytes(data: Tensor) -> int:
    return data[:1].numel() * data.element_size()


def _as_slice(rows: np.ndarray) -> slice | Tensor:
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else torch.from_numpy(rows)


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
