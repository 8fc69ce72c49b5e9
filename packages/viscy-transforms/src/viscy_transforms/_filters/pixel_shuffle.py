"""Random shuffling of voxels inside small cubes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from viscy_transforms._batched import BatchedRandom, BatchedRandomd

__all__ = ["BatchedRandLocalPixelShufflingd"]

_MOST_CUBES = 100


class BatchedRandLocalPixelShufflingd(BatchedRandomd):
    """Permute the voxels inside cubes at random places; all keys and channels of a sample alike.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X) and the same spatial size.
    patch_size : int, default 3
        Side of a cube, cut to the axis where that is shorter.
    shuffle_prob : float, default 0.1
        Share of the image that cubes cover if they do not overlap; at most 100 cubes are made.
    prob : float, default 0.1
        Probability of each sample to be changed.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        patch_size: int = 3,
        shuffle_prob: float = 0.1,
        prob: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, _LocalPixelShuffling(patch_size, shuffle_prob, prob), allow_missing_keys)


class _LocalPixelShuffling(BatchedRandom):
    computes = False
    places = True

    def __init__(self, patch_size: int, shuffle_prob: float, prob: float) -> None:
        super().__init__(prob)
        if patch_size < 1:
            raise ValueError(f"patch_size is {patch_size}, expected at least 1")
        if not 0 <= shuffle_prob <= 1:
            raise ValueError(f"shuffle_prob is {shuffle_prob}, expected a share between 0 and 1")
        self.patch_size, self.shuffle_prob = patch_size, shuffle_prob

    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        image = data.shape[2:]
        sides = [min(self.patch_size, length) for length in image]
        cubes = min(int(self.shuffle_prob * math.prod(image) / self.patch_size ** len(image)), _MOST_CUBES)
        places = torch.tensor([length - side + 1 for length, side in zip(image, sides, strict=True)])
        starts = (self._rand(data.shape[0], cubes, len(image)) * places).long().clamp(max=places - 1)
        orders = self._rand(data.shape[0], cubes, math.prod(sides)).argsort(-1)
        return starts, orders

    def _transform(self, data: Tensor, starts: Tensor, orders: Tensor) -> Tensor:
        image = data.shape[2:]
        strides = torch.tensor([math.prod(image[axis + 1 :]) for axis in range(len(image))])
        strides = strides.to(data.device, non_blocking=True)
        sides = [torch.arange(min(self.patch_size, length), device=data.device) for length in image]
        cube = (torch.cartesian_prod(*sides) * strides).sum(-1)
        positions = (starts * strides).sum(-1, keepdim=True) + cube  # (B, cubes, voxels)
        source = torch.arange(math.prod(image), device=data.device).repeat(len(data), 1)
        # In sequence, because cubes may overlap; only the map of positions is permuted here, the image once at the end.
        for one, order in zip(positions.unbind(1), orders.unbind(1), strict=True):
            source.scatter_(1, one, source.gather(1, one.gather(1, order)))
        flat = data.flatten(2)
        return flat.gather(2, source[:, None].expand(-1, flat.shape[1], -1)).reshape(data.shape)
