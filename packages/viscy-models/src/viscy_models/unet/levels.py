"""The path through a U-Net: down by halves, through the bottom, and up again beside what was kept.

Ronneberger et al., "U-Net: Convolutional networks for biomedical image segmentation", MICCAI 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from viscy_models._components.arguments import one_of, positive
from viscy_models._components.checkpointing import checkpointed
from viscy_models._components.inputs import require_stack
from viscy_models._components.memory_format import MixedFormatModule

__all__ = ["Task", "UnetLevels"]

Task = Literal["seg", "reg"]


class UnetLevels(MixedFormatModule):
    """Base of the U-Nets whose blocks are called ``down_conv_block_{i}``, ``up_conv_block_{i}`` and so on.

    Subclasses register ``bottom_transition_block`` and ``terminal_block`` too, say how images are halved and doubled,
    and may change what is kept of a level.
    """

    _halves: ClassVar[tuple[int, ...]]  # factor of each spatial axis between two levels
    _doubling: ClassVar[Literal["bilinear", "trilinear"]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        num_block_layers: int,
        num_filters: Sequence[int] | None,
        task: Task,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        counts = {"in_channels": in_channels, "out_channels": out_channels, "num_blocks": num_blocks}
        for name, value in {**counts, "num_block_layers": num_block_layers}.items():
            positive(name, value)
        one_of("task", task, get_args(Task))
        self.in_channels, self.out_channels, self.num_blocks = in_channels, out_channels, num_blocks
        self.gradient_checkpointing = gradient_checkpointing
        self._widths = _level_widths(num_filters, num_blocks)

    def _up_widths(self) -> list[tuple[int, int]]:
        """Channels into and out of each block on the way up."""
        widths = self._widths[::-1]
        return [(below + width, width) for below, width in pairwise(widths)]

    def _require(self, x: Tensor, depth: int) -> None:
        multiple = 2**self.num_blocks
        require_stack(x, self.in_channels, (depth,), (multiple, multiple))

    def _compute(self, x: Tensor) -> Tensor:
        skips = []
        for i in range(self.num_blocks):
            x = self._block(f"down_conv_block_{i}", x)
            skips.append(self._keep(i, x))
            x = self.get_submodule(f"down_samp_{i}")(x)
        x = self._block("bottom_transition_block", x)
        for i in range(self.num_blocks):
            x = interpolate(x, scale_factor=self._halves, mode=self._doubling, align_corners=False)
            x = self._block(f"up_conv_block_{i}", torch.cat([x, skips.pop()], dim=1))
        return self._block("terminal_block", x)

    def _block(self, name: str, x: Tensor) -> Tensor:
        return checkpointed(self.gradient_checkpointing, self.get_submodule(name), x)

    def _keep(self, level: int, x: Tensor) -> Tensor:
        """Return what the way up sees of a level."""
        return x


def _level_widths(num_filters: Sequence[int] | None, num_blocks: int) -> list[int]:
    """Channels of each level, the bottom included."""
    if not num_filters:
        return [16 * 2**i for i in range(num_blocks + 1)]
    if len(num_filters) != num_blocks + 1:
        raise ValueError(
            f"num_filters has {len(num_filters)} numbers, expected {num_blocks + 1}: one for each of num_blocks = "
            f"{num_blocks} levels and one for the bottom"
        )
    for width in num_filters:
        positive("a number of num_filters", width)
    return list(num_filters)
