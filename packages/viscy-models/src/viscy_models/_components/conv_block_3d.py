"""Convolutional block of the 2.5D U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from viscy_models._components.arguments import odd_kernel, one_of
from viscy_models._components.conv_block import Activation, ConvBlock, FilterSteps, Norm

__all__ = ["ConvBlock3D"]


class ConvBlock3D(ConvBlock):
    """Repeat convolution, activation and normalisation in 3D, and add the input to the result.

    Parameters
    ----------
    in_filters, out_filters, dropout, norm, residual, activation, transpose, num_repeats, filter_steps, layer_order
        As in :class:`~viscy_models._components.conv_block_2d.ConvBlock2D`.
    kernel_size : int or sequence of three int, default (3, 3, 3)
        Odd sizes in (Z, Y, X).
    padding : {"same", "valid_stack", "valid"}, optional
        Zeros around all axes so that the size stays (the default), around Y and X only so that each convolution takes
        ``kernel - 1`` slices off the stack, or none. The residual sum takes the centre of the input.

    Raises
    ------
    ValueError
        For any other value; the message says what fits.
    """

    spatial_dims = 3

    def __init__(
        self,
        in_filters: int,
        out_filters: int,
        dropout: float = False,
        norm: Norm = "batch",
        residual: bool = True,
        activation: Activation = "relu",
        transpose: bool = False,
        kernel_size: int | Sequence[int] = (3, 3, 3),
        num_repeats: int = 3,
        filter_steps: FilterSteps = "first",
        layer_order: str = "can",
        padding: Literal["same", "valid_stack", "valid"] | None = None,
    ) -> None:
        kernel = odd_kernel("kernel_size", kernel_size, 3)
        super().__init__(
            in_filters,
            out_filters,
            kernel,
            _margins(kernel, "same" if padding is None else padding),
            dropout=dropout,
            norm=norm,
            residual=residual,
            activation=activation,
            transpose=transpose,
            num_repeats=num_repeats,
            filter_steps=filter_steps,
            layer_order=layer_order,
        )


def _margins(kernel: tuple[int, ...], padding: str) -> tuple[int, ...]:
    """Zeros at each end of each axis."""
    one_of("padding", padding, ("same", "valid_stack", "valid"))
    z, y, x = (size // 2 for size in kernel)
    return {"same": (z, y, x), "valid_stack": (0, y, x), "valid": (0, 0, 0)}[padding]
