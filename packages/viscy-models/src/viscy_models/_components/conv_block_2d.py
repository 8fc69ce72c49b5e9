"""Convolutional block of the 2D U-Net."""

from __future__ import annotations

from collections.abc import Sequence

from viscy_models._components.arguments import odd_kernel
from viscy_models._components.conv_block import Activation, ConvBlock, FilterSteps, Norm

__all__ = ["ConvBlock2D"]


class ConvBlock2D(ConvBlock):
    """Repeat convolution, activation and normalisation in 2D, and add the input to the result.

    Parameters
    ----------
    in_filters, out_filters : int
        Channels that go in and come out.
    dropout : float, default False
        Share of the channels that are dropped after each convolution in training, at least 0 and below 1.
    norm : {"batch", "instance", "none"}, default "batch"
        Normalisation; that of instances has no parameters.
    residual : bool, default True
        Add the input to the result: through a 1x1 convolution where the block narrows, behind zero channels where it
        widens.
    activation : {"relu", "leakyrelu", "elu", "selu", "linear"}, default "relu"
        Activation; linear is none.
    transpose : bool, default False
        Refused when True.
    kernel_size : int or sequence of two int, default 3
        Odd sizes in (Y, X); the image is padded with zeros and keeps its size.
    num_repeats : int, default 3
        Number of convolutions.
    filter_steps : {"first", "linear", "last"}, default "first"
        Which convolution changes the width: the first, each by its share (rounded down), or the last.
    layer_order : str, default "can"
        Order of c(onvolution), a(ctivation) and n(ormalisation).

    Raises
    ------
    ValueError
        For any other value; the message says what fits.

    Notes
    -----
    ``resid_conv`` always exists, as published checkpoints hold it, and has no gradient where the sum does not need it.
    """

    spatial_dims = 2

    def __init__(
        self,
        in_filters: int,
        out_filters: int,
        dropout: float = False,
        norm: Norm = "batch",
        residual: bool = True,
        activation: Activation = "relu",
        transpose: bool = False,
        kernel_size: int | Sequence[int] = 3,
        num_repeats: int = 3,
        filter_steps: FilterSteps = "first",
        layer_order: str = "can",
    ) -> None:
        kernel = odd_kernel("kernel_size", kernel_size, 2)
        super().__init__(
            in_filters,
            out_filters,
            kernel,
            tuple(size // 2 for size in kernel),
            dropout=dropout,
            norm=norm,
            residual=residual,
            activation=activation,
            transpose=transpose,
            num_repeats=num_repeats,
            filter_steps=filter_steps,
            layer_order=layer_order,
        )
