"""Random shifts along z."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from viscy_transforms._batched import BatchedRandom, BatchedRandomd
from viscy_transforms._blocks import one_by_one

__all__ = ["BatchedRandZStackShiftd"]


class BatchedRandZStackShiftd(BatchedRandomd):
    """Shift every sample along z by a random number of slices; all keys of a sample move alike.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X).
    max_shift : int, default 3
        Shifts are drawn from -max_shift to max_shift; a positive one moves the content to larger z.
    prob : float, default 0.1
        Probability of each sample to be shifted.
    mode : {"constant"}, default "constant"
        How slices without content are filled.
    cval : float, default 0.0
        What they are filled with; of integer batches, a value that their type has.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.

    Raises
    ------
    ValueError
        If the mode is another one, the largest shift negative, or at call if there is no z axis or an integer batch
        cannot hold ``cval``.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        max_shift: int = 3,
        prob: float = 0.1,
        mode: Literal["constant"] = "constant",
        cval: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        if mode != "constant":
            raise ValueError(f"mode is {mode!r}, expected 'constant'")
        super().__init__(keys, _ZStackShift(max_shift, prob, cval), allow_missing_keys)


class _ZStackShift(BatchedRandom):
    computes = False
    takes_out = True
    block_bytes = 1 << 20

    def __init__(self, max_shift: int, prob: float, cval: float) -> None:
        super().__init__(prob)
        if max_shift < 0:
            raise ValueError(f"max_shift is {max_shift}, expected 0 or more slices")
        self.max_shift, self.cval = max_shift, cval

    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        if data.ndim != 5:
            raise ValueError(f"a shift along z needs a batch (B, C, Z, Y, X), found the shape {tuple(data.shape)}")
        _check_fill(self.cval, data.dtype)
        return (torch.randint(-self.max_shift, self.max_shift + 1, (data.shape[0],), generator=self._generator),)

    def _transform(self, data: Tensor, shift: Tensor, out: Tensor | None = None) -> Tensor:
        depth = data.shape[2]
        if out is not None and len(data) == 1 and one_by_one(data):  # slices are copied in one pass
            up = min(max(*shift.tolist(), -depth), depth)
            kept = depth - abs(up)
            out.narrow(2, max(up, 0), kept).copy_(data.narrow(2, max(-up, 0), kept))
            out.narrow(2, 0 if up > 0 else kept, abs(up)).fill_(self.cval)
            return out
        source = torch.arange(depth, device=data.device) - shift[:, None]  # (B, Z)
        samples = torch.arange(len(data), device=data.device)[:, None]
        source = torch.where((source >= 0) & (source < depth), source, depth)  # the slice that is put behind the others
        filled = torch.nn.functional.pad(data, (0, 0, 0, 0, 0, 1), value=self.cval)
        return filled.transpose(1, 2)[samples, source].transpose(1, 2)


def _check_fill(value: float, dtype: torch.dtype) -> None:
    if dtype.is_floating_point:
        return
    low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    if not low <= value <= high or value != int(value):
        raise ValueError(f"cval is {value}, expected a whole number from {low} to {high} for a batch of {dtype}")
