"""Decoder of the 2.5D variational autoencoder: from a point of the latent space to a stack."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from monai.networks.blocks import ResidualUnit
from torch import Tensor, nn

from viscy_models._components.arguments import positive
from viscy_models._components.blocks import NormName, PreConv, UpsampleMode, check_stage, upsampling
from viscy_models._components.checkpointing import checkpointed
from viscy_models._components.heads import PixelToVoxelHead

__all__ = ["VaeDecoder", "VaeUpStage"]


class VaeUpStage(nn.Module):
    """Upsample a feature map and convolve.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the feature map and after the stage.
    scale_factor : int
        Factor in Y and X.
    mode : {"deconv", "pixelshuffle"}
        A transposed convolution, a residual unit and a 1x1 convolution; or a pixel shuffle and residual units.
    conv_blocks : int
        Number of residual units after a pixel shuffle; ``deconv`` has one.
    norm_name : {"batch", "instance"}
        Normalisation of the residual units.
    upsample_pre_conv : "default", module or None
        Convolution before the pixel shuffle.

    Raises
    ------
    ValueError
        If an argument is none of these, or the channels do not fit the factor.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scale_factor: int,
        mode: UpsampleMode,
        conv_blocks: int,
        norm_name: NormName,
        upsample_pre_conv: PreConv,
    ) -> None:
        super().__init__()
        check_stage(out_channels, conv_blocks, norm_name)
        self.upsample, mid_channels = upsampling(in_channels, out_channels, scale_factor, mode, upsample_pre_conv)
        if mode == "deconv":
            unit = ResidualUnit(2, mid_channels, out_channels, norm=norm_name)
            self.conv = nn.Sequential(unit, nn.Conv2d(out_channels, out_channels, kernel_size=1))
        else:
            widths = [mid_channels] + [out_channels] * conv_blocks
            self.conv = nn.Sequential(*(ResidualUnit(2, a, b, norm=norm_name) for a, b in pairwise(widths)))

    def forward(self, inp: Tensor) -> Tensor:
        """Turn (B, in_channels, H, W) into (B, out_channels, scale_factor H, scale_factor W)."""
        return self.conv(self.upsample(inp))


class VaeDecoder(nn.Module):
    """Decode points of a latent space into stacks.

    Parameters
    ----------
    decoder_channels : sequence of int, default (1024, 512, 256, 128)
        Width of the feature map that each stage takes, coarsest first.
    latent_dim : int, default 1024
        Width L of the latent space, a multiple of ``encoder_spatial_size ** 2``.
    out_channels : int, default 2
        Channels of the image.
    out_stack_depth : int, default 16
        Number of z slices Z.
    head_expansion_ratio : int, default 2
        Width of the head's 3D convolution, in units of its output.
    strides : sequence of int, default (2, 2, 2, 1)
        Factor of each stage in Y and X.
    encoder_spatial_size : int, default 16
        Size s of the coarsest feature map in Y and X.
    head_pool : bool, default False
        Average neighbouring pixels in the head, against checkerboards.
    upsample_mode, conv_blocks, norm_name, upsample_pre_conv
        See :class:`VaeUpStage`.
    gradient_checkpointing : bool, default False
        Compute the stages again in the backward pass instead of keeping their activations.

    Raises
    ------
    ValueError
        If ``latent_dim`` is not such a multiple, there are not as many strides as widths, or they do not fit.
    """

    def __init__(
        self,
        decoder_channels: Sequence[int] = (1024, 512, 256, 128),
        latent_dim: int = 1024,
        out_channels: int = 2,
        out_stack_depth: int = 16,
        head_expansion_ratio: int = 2,
        strides: Sequence[int] = (2, 2, 2, 1),
        encoder_spatial_size: int = 16,
        head_pool: bool = False,
        upsample_mode: UpsampleMode = "pixelshuffle",
        conv_blocks: int = 2,
        norm_name: NormName = "batch",
        upsample_pre_conv: PreConv = None,
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        for name, count in (
            ("encoder_spatial_size", encoder_spatial_size),
            ("out_channels", out_channels),
            ("out_stack_depth", out_stack_depth),
            ("head_expansion_ratio", head_expansion_ratio),
        ):
            positive(name, count)
        cells = encoder_spatial_size**2
        if latent_dim < 1 or latent_dim % cells:
            near = max(latent_dim // cells, 1) * cells
            raise ValueError(
                f"latent_dim is {latent_dim}, expected a multiple of {cells}, the {encoder_spatial_size} x "
                f"{encoder_spatial_size} cells of the last feature map, such as {near} or {near + cells}"
            )
        if not decoder_channels or len(strides) != len(decoder_channels):
            raise ValueError(
                f"found {len(decoder_channels)} decoder_channels and {len(strides)} strides, expected one of each"
            )
        head_channels = (out_stack_depth + 2) * out_channels * 4 * head_expansion_ratio
        widths = [*decoder_channels, head_channels]
        self.latent_shape = (latent_dim // cells, encoder_spatial_size, encoder_spatial_size)
        self.latent_reshape = nn.Linear(latent_dim, latent_dim)
        self.latent_proj = nn.Conv2d(latent_dim // cells, widths[0], kernel_size=1)
        self.decoder_stages = nn.ModuleList(
            VaeUpStage(coarse, fine, stride, upsample_mode, conv_blocks, norm_name, upsample_pre_conv)
            for (coarse, fine), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.head = PixelToVoxelHead(head_channels, out_channels, out_stack_depth, head_expansion_ratio, head_pool)
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, z: Tensor) -> Tensor:
        """Decode a batch.

        Parameters
        ----------
        z : Tensor, shape (B, L)
            Points of the latent space.

        Returns
        -------
        Tensor, shape (B, out_channels, Z, Y, X)
            Stacks, of 4 s times the product of the strides in Y and X.
        """
        x = self.latent_proj(self.latent_reshape(z).unflatten(1, self.latent_shape))
        for stage in self.decoder_stages:
            x = checkpointed(self.gradient_checkpointing, stage, x)
        return self.head(x)
