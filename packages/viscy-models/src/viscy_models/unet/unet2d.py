"""2D U-Net with the interface of the 3D ones.

Ronneberger et al., "U-Net", MICCAI 2015; as used for virtual staining by Guo et al., "Revealing architectural order
with quantitative label-free imaging and deep learning", eLife 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from viscy_models._components.arguments import odd_kernel, rate
from viscy_models._components.conv_block_2d import ConvBlock2D
from viscy_models.unet.levels import Task, UnetLevels

__all__ = ["Unet2d"]


class Unet2d(UnetLevels):
    """Translate or segment single slices.

    Parameters
    ----------
    in_channels, out_channels : int, default 1
        Channels of the image and of the result.
    kernel_size : int or sequence of two int, default (3, 3)
        Odd sizes in (Y, X) of the convolutions.
    residual : bool, default False
        Add the input of each block to its output.
    dropout : float, default 0.2
        Share of the channels dropped after each convolution in training, the last one excepted; at least 0, below 1.
    num_blocks : int, default 4
        Number of levels above the bottom; Y and X are multiples of ``2**num_blocks``.
    num_block_layers : int, default 2
        Convolutions per block.
    num_filters : sequence of int, default ()
        Channels of each level and of the bottom, ``num_blocks + 1`` numbers; 16, 32, 64, ... when empty.
    task : {"seg", "reg"}, default "seg"
        Segmentation ends in a ReLU, regression in the last convolution.
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
    >>> model = Unet2d(in_channels=2, num_blocks=2, task="reg").eval()
    >>> tuple(model(torch.zeros(1, 2, 1, 32, 48)).shape)
    (1, 1, 1, 32, 48)
    """

    _halves = (2, 2)
    _doubling = "bilinear"

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        kernel_size: int | Sequence[int] = (3, 3),
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
        options = {
            "dropout": rate("dropout", dropout),
            "residual": residual,
            "kernel_size": odd_kernel("kernel_size", kernel_size, 2),
            "num_repeats": num_block_layers,
        }
        widths = [in_channels, *self._widths]
        for i in range(num_blocks):
            self.add_module(f"down_samp_{i}", nn.AvgPool2d(2))
        for i in range(num_blocks):
            self.add_module(f"down_conv_block_{i}", ConvBlock2D(widths[i], widths[i + 1], **options))
        self.bottom_transition_block = ConvBlock2D(widths[-2], widths[-1], **options)
        for i, (before, after) in enumerate(self._up_widths()):
            self.add_module(f"up_conv_block_{i}", ConvBlock2D(before, after, **options))
        self.terminal_block = ConvBlock2D(
            widths[1],
            out_channels,
            norm="none",
            residual=False,
            activation="linear" if task == "reg" else "relu",
            kernel_size=options["kernel_size"],
            num_repeats=1,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Translate a batch.

        Parameters
        ----------
        x : Tensor, shape (B, in_channels, 1, Y, X)
            Normalised slices.

        Returns
        -------
        Tensor, shape (B, out_channels, 1, Y, X)
            Of the same size.

        Raises
        ------
        ValueError
            If the channels are others, there is more than one slice, or Y or X is no multiple of ``2**num_blocks``.
        """
        self._require(x, depth=1)
        return self._compute(x.squeeze(2)).unsqueeze(2)
