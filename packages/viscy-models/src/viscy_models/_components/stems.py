"""Stems: the first convolution, which turns a z-stack into the 2D feature map a backbone expects."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import Tensor, nn

from viscy_models._components.arguments import positive

__all__ = ["StemDepthtoChannels", "UNeXt2Stem", "folded_channels", "stem_triple"]

_logger = logging.getLogger(__name__)


class StemDepthtoChannels(nn.Module):
    """Convolve a stack in 3D and fold the remaining depth into the channels.

    The convolution makes ``in_channels_encoder / D`` channels at each of ``D`` depths, so that their product is the
    width that the backbone expects, whatever the depth of the stack.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    in_stack_depth : int
        Number of z slices Z.
    in_channels_encoder : int
        Width of the backbone after its own first convolution, which this stem replaces.
    stem_kernel_size, stem_stride : tuple of int, default (5, 4, 4)
        Kernel and stride in (Z, Y, X). The remaining depth is ``D = (Z - kernel) // stride + 1``.

    Raises
    ------
    ValueError
        If the stack is shallower than the kernel, or ``D`` does not divide ``in_channels_encoder``; the message lists
        the depths that fit.
    """

    def __init__(
        self,
        in_channels: int,
        in_stack_depth: int,
        in_channels_encoder: int,
        stem_kernel_size: tuple[int, int, int] = (5, 4, 4),
        stem_stride: tuple[int, int, int] = (5, 4, 4),
    ) -> None:
        super().__init__()
        kernel, stride = stem_triple("stem_kernel_size", stem_kernel_size), stem_triple("stem_stride", stem_stride)
        positive("in_channels", in_channels)
        self.in_channels, self.in_stack_depth = in_channels, in_stack_depth
        channels = self.compute_stem_channels(in_stack_depth, kernel, stride[0], in_channels_encoder)
        self.conv = nn.Conv3d(in_channels, channels, kernel_size=kernel, stride=stride)

    def compute_stem_channels(
        self,
        in_stack_depth: int,
        stem_kernel_size: Sequence[int],
        stem_stride_depth: int,
        in_channels_encoder: int,
    ) -> int:
        """Return the channels per remaining depth slice.

        Raises
        ------
        ValueError
            If the depth does not fit the kernel, the stride and the width of the encoder.
        """
        kernel_depth = stem_kernel_size[0]
        setting = f"stem kernel depth {kernel_depth} and stride {stem_stride_depth}"
        fitting = _fitting_depths(kernel_depth, stem_stride_depth, in_channels_encoder)
        if in_stack_depth < kernel_depth:
            raise ValueError(
                f"in_stack_depth is {in_stack_depth}, shallower than the {setting}; depths that fit are {fitting}, "
                f"or take a stem_kernel_size and stem_stride that begin with {max(in_stack_depth, 1)}"
            )
        depth, unseen = divmod(in_stack_depth - kernel_depth, stem_stride_depth)
        depth += 1
        if in_channels_encoder % depth:
            raise ValueError(
                f"in_stack_depth {in_stack_depth} with {setting} leaves {depth} depth slices, which do not divide the "
                f"{in_channels_encoder} channels of the encoder's stem; depths that fit are {fitting}"
            )
        if unseen:
            _logger.warning(
                "in_stack_depth %d with %s: the last %d z slices are not seen", in_stack_depth, setting, unseen
            )
        return in_channels_encoder // depth

    def forward(self, x: Tensor) -> Tensor:
        """Turn a stack into a feature map.

        Parameters
        ----------
        x : Tensor, shape (B, C, Z, Y, X)
            The image.

        Returns
        -------
        Tensor, shape (B, in_channels_encoder, H, W)
            Depth is folded into the channels: all depths of the first channel, then of the second.

        Raises
        ------
        ValueError
            If the channels or the depth are not those of the constructor.
        """
        if x.ndim != 5 or x.shape[1] != self.in_channels or x.shape[2] != self.in_stack_depth:
            raise ValueError(
                f"found an input of shape {tuple(x.shape)}, expected (batch, {self.in_channels} channels, "
                f"{self.in_stack_depth} z slices, Y, X) as in_channels and in_stack_depth say"
            )
        x = self.conv(x)  # (B, C', D, H, W)
        return x.flatten(1, 2)


class UNeXt2Stem(nn.Module):
    """Cut a stack into patches without overlap, project them, and fold the remaining depth into the channels.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    out_channels : int
        Width of the feature map: a multiple of the ``in_stack_depth / kernel depth`` slices that remain.
    kernel_size : tuple of int
        Size of a patch in (Z, Y, X), and the stride.
    in_stack_depth : int
        Number of z slices Z, a multiple of the kernel depth.

    Raises
    ------
    ValueError
        If the kernel depth does not divide the stack, or the remaining slices the width; the message says what fits.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, int, int], in_stack_depth: int
    ) -> None:
        super().__init__()
        positive("in_channels", in_channels)
        kernel = stem_triple("stem_kernel_size", kernel_size)
        channels = folded_channels(out_channels, kernel[0], in_stack_depth)
        self.conv = nn.Conv3d(in_channels, channels, kernel_size=kernel, stride=kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Turn a stack into a feature map.

        Parameters
        ----------
        x : Tensor, shape (B, C, Z, Y, X)
            The image.

        Returns
        -------
        Tensor, shape (B, out_channels, Y / kernel, X / kernel)
            All depths of the first channel, then of the second.
        """
        return self.conv(x).flatten(1, 2)


def folded_channels(out_channels: int, kernel_depth: int, in_stack_depth: int) -> int:
    """Return the channels per remaining slice when patches of ``kernel_depth`` slices cover a stack.

    Raises
    ------
    ValueError
        If they do not cover it exactly, or the remaining slices do not divide ``out_channels``.
    """
    depth, rest = divmod(in_stack_depth, kernel_depth)
    if rest or depth < 1:
        near = max(depth, 1) * kernel_depth
        raise ValueError(
            f"in_stack_depth {in_stack_depth} is not a multiple of the stem kernel depth {kernel_depth}; "
            f"{near} and {near + kernel_depth} are, or take a stem_kernel_size that begins with a divisor of the depth"
        )
    if out_channels % depth:
        raise ValueError(
            f"in_stack_depth {in_stack_depth} with stem kernel depth {kernel_depth} leaves {depth} depth slices, which "
            f"do not divide the {out_channels} channels of the encoder's stem; depths that fit are "
            f"{_fitting_depths(kernel_depth, kernel_depth, out_channels)}"
        )
    return out_channels // depth


def stem_triple(name: str, value: Sequence[int]) -> tuple[int, int, int]:
    """Return three positive numbers in the order (Z, Y, X).

    Raises
    ------
    ValueError
        If there are not three of them, or one is not positive.
    """
    value = tuple(value)
    if len(value) != 3 or min(value) < 1:
        raise ValueError(f"{name} is {value}, expected three positive numbers in the order (Z, Y, X)")
    return value


def _fitting_depths(kernel_depth: int, stride_depth: int, width: int, limit: int = 8) -> str:
    slices = [n for n in range(1, width + 1) if width % n == 0][:limit]
    return ", ".join(str(kernel_depth + (n - 1) * stride_depth) for n in slices)
