"""Heads: turn the last 2D feature map of a decoder into a stack of z slices."""

from __future__ import annotations

from monai.networks.blocks import Convolution, UpSample
from monai.networks.utils import normal_init
from torch import Tensor, nn

from viscy_models._components.arguments import positive
from viscy_models._components.blocks import icnr_init

__all__ = ["PixelToVoxelHead", "PixelToVoxelShuffleHead", "UnsqueezeHead"]


class PixelToVoxelHead(nn.Module):
    """Shuffle pixels and channels into voxels, with a 3D convolution between two steps of twofold upsampling.

    Parameters
    ----------
    in_channels : int
        Channels of the feature map: 4 (out_stack_depth + 2) times the channels of the 3D convolution's input.
    out_channels : int
        Channels of the image.
    out_stack_depth : int
        Number of z slices Z.
    expansion_ratio : int
        Width of the 3D convolution, in units of the 4 ``out_channels`` that the second shuffle takes.
    pool : bool
        Average neighbouring pixels after the first upsampling, against checkerboards.

    Raises
    ------
    ValueError
        If a count is below one, or ``in_channels`` is not a multiple of 4 (out_stack_depth + 2).
    """

    def __init__(
        self, in_channels: int, out_channels: int, out_stack_depth: int, expansion_ratio: int, pool: bool
    ) -> None:
        super().__init__()
        positive("out_channels", out_channels)
        positive("out_stack_depth", out_stack_depth)
        positive("expansion_ratio", expansion_ratio)
        depth = out_stack_depth + 2  # the 3D convolution is not padded in depth
        if in_channels < 1 or in_channels % (4 * depth):
            raise ValueError(
                f"in_channels of the head is {in_channels}, expected a multiple of {4 * depth}, "
                f"which is 4 x (out_stack_depth {out_stack_depth} + 2)"
            )
        self.out_stack_depth = out_stack_depth
        self.upsample = UpSample(
            2, in_channels, in_channels // 4, 2, mode="pixelshuffle", pre_conv=None, apply_pad_pool=pool
        )
        mid_channels = out_channels * 4 * expansion_ratio
        self.conv = nn.Sequential(
            Convolution(3, in_channels // 4 // depth, mid_channels, kernel_size=3, padding=(0, 1, 1)),
            nn.Conv3d(mid_channels, out_channels * 4, kernel_size=1),
        )
        self.conv[0].apply(normal_init)
        icnr_init(self.conv[1], upsample_factor=2, upsample_dims=2)
        self.out = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Turn a feature map into a stack.

        Parameters
        ----------
        x : Tensor, shape (B, in_channels, H, W)
            The feature map.

        Returns
        -------
        Tensor, shape (B, out_channels, Z, 4 H, 4 W)
            The stack.
        """
        x = self.upsample(x)
        x = x.unflatten(1, (-1, self.out_stack_depth + 2))  # (B, C', Z + 2, 2 H, 2 W)
        x = self.conv(x).transpose(1, 2)  # (B, Z, 4 out_channels, 2 H, 2 W)
        return self.out(x).transpose(1, 2)


class UnsqueezeHead(nn.Module):
    """Add a depth axis: the stack has one slice."""

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, C, H, W) into (B, C, 1, H, W), a view."""
        return x.unsqueeze(2)


class PixelToVoxelShuffleHead(nn.Module):
    """Shuffle channels straight into voxels, without parameters.

    Parameters
    ----------
    in_channels : int
        Channels of the feature map: ``out_channels * out_stack_depth * xy_scaling ** 2``.
    out_channels : int
        Channels of the image.
    out_stack_depth : int, default 5
        Number of z slices Z.
    xy_scaling : int, default 4
        Factor in Y and X.
    pool : bool, default False
        Average neighbouring pixels after upsampling, against checkerboards.

    Raises
    ------
    ValueError
        If the channels are not that product.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        out_stack_depth: int = 5,
        xy_scaling: int = 4,
        pool: bool = False,
    ) -> None:
        super().__init__()
        expected = out_channels * out_stack_depth * xy_scaling**2
        if expected < 1 or in_channels != expected:
            raise ValueError(
                f"in_channels of the head is {in_channels}, expected {expected}, which is out_channels {out_channels} "
                f"x out_stack_depth {out_stack_depth} x xy_scaling {xy_scaling} squared"
            )
        self.out_channels, self.out_stack_depth = out_channels, out_stack_depth
        self.upsample = UpSample(
            2,
            in_channels,
            out_channels * out_stack_depth,
            xy_scaling,
            mode="pixelshuffle",
            pre_conv=None,
            apply_pad_pool=pool,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Turn a feature map into a stack.

        Parameters
        ----------
        x : Tensor, shape (B, in_channels, H, W)
            The feature map.

        Returns
        -------
        Tensor, shape (B, out_channels, Z, s H, s W) with s = xy_scaling
            The stack.
        """
        return self.upsample(x).unflatten(1, (self.out_channels, self.out_stack_depth))
