"""2.5D U-Net: a stack in, fewer slices out.

Guo et al., "Revealing architectural order with quantitative label-free imaging and deep learning", eLife 2020; Liu et
al., "Robust virtual staining of landmark organelles", Nature Machine Intelligence 2025.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from viscy_models._components.arguments import odd_kernel, positive, rate
from viscy_models._components.conv_block_3d import ConvBlock3D
from viscy_models.unet.levels import Task, UnetLevels

__all__ = ["Unet25d"]


class Unet25d(UnetLevels):
    """Translate or segment stacks: 3D on the way down, slice by slice on the way up.

    Parameters
    ----------
    in_channels, out_channels : int, default 1
        Channels of the image and of the result.
    in_stack_depth, out_stack_depth : int, default 5 and 1
        Number of z slices that go in and come out, at most as many as go in.
    xy_kernel_size : int or sequence of two int, default (3, 3)
        Odd sizes in (Y, X) of the convolutions.
    residual : bool, default False
        Add the input of each block to its output.
    dropout : float, default 0.2
        Share of the channels dropped after each convolution in training, from 0 to 0.5.
    num_blocks : int, default 4
        Number of levels above the bottom; Y and X are multiples of ``2**num_blocks``.
    num_block_layers : int, default 2
        Convolutions per block.
    num_filters : sequence of int, default ()
        Channels of each level and of the bottom, ``num_blocks + 1`` numbers; 16, 32, 64, ... when empty.
    task : {"seg", "reg"}, default "seg"
        Segmentation ends in dropout, a ReLU and a batch norm, regression in the last convolution.
    gradient_checkpointing : bool, default False
        Compute the blocks again in the backward pass instead of keeping their activations.

    Attributes
    ----------
    num_blocks : int
        As given.

    Raises
    ------
    ValueError
        If an argument has any other value; the message says what fits.

    Examples
    --------
    >>> import torch
    >>> model = Unet25d(in_stack_depth=5, out_stack_depth=3, num_blocks=2, task="reg").eval()
    >>> tuple(model(torch.zeros(1, 1, 5, 32, 48)).shape)
    (1, 1, 3, 32, 48)
    """

    _halves = (1, 2, 2)
    _doubling = "trilinear"

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        in_stack_depth: int = 5,
        out_stack_depth: int = 1,
        xy_kernel_size: int | Sequence[int] = (3, 3),
        residual: bool = False,
        dropout: float = 0.2,
        num_blocks: int = 4,
        num_block_layers: int = 2,
        num_filters: Sequence[int] | None = (),
        task: Task = "seg",
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            in_channels, out_channels, num_blocks, num_block_layers, num_filters, task, gradient_checkpointing
        )
        self.in_stack_depth, self.out_stack_depth = in_stack_depth, out_stack_depth
        compress = _compressing_kernel(in_stack_depth, out_stack_depth)
        kernel = odd_kernel("xy_kernel_size", xy_kernel_size, 2)
        dropout = rate("dropout", dropout, most=0.5)
        options = {"dropout": dropout, "residual": residual, "num_repeats": num_block_layers}
        widths = [in_channels, *self._widths]
        for i in range(num_blocks):
            self.add_module(f"down_samp_{i}", nn.AvgPool3d(self._halves))
        for i in range(num_blocks):
            block = ConvBlock3D(widths[i], widths[i + 1], kernel_size=(3, *kernel), **options)
            self.add_module(f"down_conv_block_{i}", block)
        self.bottom_transition_block = nn.Conv3d(widths[-2], widths[-1], compress)
        for i, (before, after) in enumerate(self._up_widths()):
            self.add_module(f"up_conv_block_{i}", ConvBlock3D(before, after, kernel_size=(1, *kernel), **options))
        for i, width in enumerate(self._widths[:-1]):
            self.add_module(f"skip_conv_layer_{i}", nn.Conv3d(width, width, compress))
        ending = {"norm": "none", "activation": "linear"} if task == "reg" else {"dropout": dropout}
        self.terminal_block = ConvBlock3D(
            widths[1], out_channels, residual=False, kernel_size=(1, 3, 3), num_repeats=1, **ending
        )

    def _keep(self, level: int, x: Tensor) -> Tensor:
        return self.get_submodule(f"skip_conv_layer_{level}")(x)

    def forward(self, x: Tensor) -> Tensor:
        """Translate a batch.

        Parameters
        ----------
        x : Tensor, shape (B, in_channels, in_stack_depth, Y, X)
            Normalised stacks.

        Returns
        -------
        Tensor, shape (B, out_channels, out_stack_depth, Y, X)
            Of the same size in Y and X.

        Raises
        ------
        ValueError
            If the channels or the depth are others, or Y or X is no multiple of ``2**num_blocks``.
        """
        self._require(x, depth=self.in_stack_depth)
        return self._compute(x)


def _compressing_kernel(in_stack_depth: int, out_stack_depth: int) -> tuple[int, int, int]:
    """Return the kernel whose convolution leaves the wanted depth."""
    positive("out_stack_depth", out_stack_depth)
    if in_stack_depth < out_stack_depth:
        raise ValueError(f"out_stack_depth is {out_stack_depth}, expected at most in_stack_depth = {in_stack_depth}")
    return (1 + in_stack_depth - out_stack_depth, 1, 1)
