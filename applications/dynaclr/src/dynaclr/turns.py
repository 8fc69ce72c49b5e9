"""Embeddings that do not depend on how a cell happens to lie under the microscope."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

__all__ = ["mean_over_turns", "turns"]


def turns(images: Tensor) -> Iterator[Tensor]:
    """Yield images (..., Y, X) turned by quarters, and their mirror images: 8, or 4 where Y and X differ."""
    quarters = range(0, 4, 1 if images.shape[-2] == images.shape[-1] else 2)
    for side in (images, images.flip(-1)):
        yield from (torch.rot90(side, number, (-2, -1)) for number in quarters)


def mean_over_turns(embed: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor) -> tuple[Tensor, ...]:
    """Return the mean of what is embedded of each of the `turns`.

    Parameters
    ----------
    embed : callable
        From images to tensors, each (B, ...).
    images : Tensor, shape (B, C, Z, Y, X)
    """
    return tuple(torch.stack(each).mean(dim=0) for each in zip(*map(embed, turns(images)), strict=True))
