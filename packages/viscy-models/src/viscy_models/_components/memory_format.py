"""Memory formats for networks that work in 2D and in 3D."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["MixedFormatModule"]

_OF_RANK = {4: torch.channels_last, 5: torch.channels_last_3d}


class MixedFormatModule(nn.Module):
    """Module with 2D and 3D convolutions that ``to(memory_format=...)`` takes as a whole.

    ``torch.channels_last`` and ``torch.channels_last_3d`` mean the same here: the weights of each convolution get the
    format of their rank, where plain modules refuse the weights of the other rank.
    """

    def to(self, *args: Any, memory_format: torch.memory_format | None = None, **options: Any) -> Self:
        """Move or cast the module as ``torch.nn.Module.to`` does.

        Parameters
        ----------
        *args, **options
            Device, dtype and so on.
        memory_format : torch.memory_format, optional
            ``torch.channels_last`` or ``torch.channels_last_3d`` for convolutions of both ranks,
            ``torch.contiguous_format`` for the way back.

        Returns
        -------
        MixedFormatModule
            The module itself.
        """
        if args or options:
            super().to(*args, **options)
        if memory_format in _OF_RANK.values():
            return self._apply(_put_channels_last)
        return self if memory_format is None else super().to(memory_format=memory_format)


def _put_channels_last(value: Tensor) -> Tensor:
    return value.to(memory_format=_OF_RANK.get(value.dim(), torch.preserve_format))
