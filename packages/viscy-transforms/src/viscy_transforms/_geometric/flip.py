"""Random flips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress

import torch
from torch import Tensor

from viscy_transforms._batched import BatchedRandom, BatchedRandomd

__all__ = ["BatchedRandFlip", "BatchedRandFlipd"]


class BatchedRandFlip(BatchedRandom):
    """Flip every sample along each of some axes with a probability, independently.

    Parameters
    ----------
    spatial_axes : int or sequence of int
        Spatial axes: for (B, C, Z, Y, X) they are 0 (Z), 1 (Y) and 2 (X).
    prob : float, default 0.5
        Probability per sample and axis.

    Raises
    ------
    ValueError
        If no axis is given, or one that images (Z, Y, X) do not have; at call, one that the data does not have.
    """

    computes = False
    block_bytes = 1 << 20

    def __init__(self, spatial_axes: int | Sequence[int], prob: float = 0.5) -> None:
        super().__init__(prob)
        self.spatial_axes = (spatial_axes,) if isinstance(spatial_axes, int) else tuple(spatial_axes)
        if not self.spatial_axes or len(set(self.spatial_axes)) != len(self.spatial_axes):
            raise ValueError(f"spatial_axes is {spatial_axes}, expected one or more different axes")
        if not all(-3 <= axis < 3 for axis in self.spatial_axes):
            raise ValueError(f"spatial_axes is {spatial_axes}, expected axes of 0 (Z), 1 (Y) and 2 (X)")

    def randomize(self, data: Tensor) -> None:
        """Draw for every sample along which axes it is flipped."""
        flips = self._draw(data)[0]
        self._parameters, self._selected = (flips,), flips.any(1)
        self._do_transform = any(self._selected.tolist())

    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        spatial = data.ndim - 2
        if not all(-spatial <= axis < spatial for axis in self.spatial_axes):
            raise ValueError(f"spatial_axes {self.spatial_axes} are not all axes of a batch {tuple(data.shape)}")
        return (self._rand(data.shape[0], len(self.spatial_axes)) < self.prob,)

    def _apply(self, data: Tensor, parameters: tuple[Tensor, ...], out: Tensor | None = None) -> Tensor:
        # The flags stay on the CPU: which samples share a combination of axes decides what is launched.
        return self._transform(data, *parameters)

    def _transform(self, data: Tensor, flips: Tensor) -> Tensor:
        axes = [axis % (data.ndim - 2) + 2 for axis in self.spatial_axes]
        combinations = set(map(tuple, flips.tolist()))
        if len(combinations) == 1:
            return data.flip(list(compress(axes, combinations.pop())))
        out = torch.empty_like(data)
        for combination in combinations:
            rows = (flips == torch.tensor(combination)).all(1).nonzero().squeeze(1).to(data.device, non_blocking=True)
            out.index_copy_(0, rows, data.index_select(0, rows).flip(list(compress(axes, combination))))
        return out


class BatchedRandFlipd(BatchedRandomd):
    """Dictionary form of :class:`BatchedRandFlip`: all keys of a sample are flipped alike.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X).
    spatial_axes : sequence of int, default (0, 1, 2)
        Spatial axes: 0 (Z), 1 (Y) and 2 (X).
    prob : float, default 0.5
        Probability per sample and axis.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        spatial_axes: int | Sequence[int] = (0, 1, 2),
        prob: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, BatchedRandFlip(spatial_axes, prob), allow_missing_keys)
