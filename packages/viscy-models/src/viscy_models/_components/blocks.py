"""Decoder of UNeXt2: upsample, concatenate what the encoder kept at that resolution, convolve.

Woo et al., "ConvNeXt V2", CVPR 2023 (the convolution stage); Shi et al., "Real-time single image and video
super-resolution using an efficient sub-pixel convolutional neural network", CVPR 2016 (pixel shuffle); Aitken et al.,
"Checkerboard artifact free sub-pixel convolution", arXiv:1707.02937 (its initialisation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from monai.networks.blocks import ResidualUnit, UpSample
from monai.networks.blocks.dynunet_block import get_conv_layer
from timm.layers import LayerNorm2d
from timm.models.convnext import ConvNeXtStage
from torch import Tensor, nn

from viscy_models._components.arguments import one_of, positive
from viscy_models._components.checkpointing import checkpointed

__all__ = [
    "NormName",
    "PreConv",
    "UNeXt2Decoder",
    "UNeXt2UpStage",
    "UpsampleMode",
    "check_stage",
    "icnr_init",
    "upsampling",
]

UpsampleMode = Literal["deconv", "pixelshuffle"]
NormName = Literal["batch", "instance"]
PreConv = Literal["default"] | Callable | None


def icnr_init(
    conv: nn.Module, upsample_factor: int, upsample_dims: int, init: Callable = nn.init.kaiming_normal_
) -> None:
    """Initialise a convolution such that the pixel shuffle after it begins as nearest-neighbour upsampling.

    Parameters
    ----------
    conv : torch.nn.Module
        A convolution or linear layer; its ``weight`` is overwritten.
    upsample_factor : int
        Factor of the pixel shuffle per axis.
    upsample_dims : int
        Number of axes that it upsamples.
    init : callable, default kaiming_normal_
        Fills the kernel that the ``upsample_factor ** upsample_dims`` outputs of one channel have in common.

    Raises
    ------
    ValueError
        If the outputs of the convolution are not a multiple of ``upsample_factor ** upsample_dims``.

    Notes
    -----
    Without it the sub-pixels of one pixel start at random and independently, seen as a checkerboard.
    """
    scale = upsample_factor**upsample_dims
    outputs = conv.weight.shape[0]
    if outputs % scale:
        raise ValueError(
            f"found a layer with {outputs} outputs, expected a multiple of {scale} "
            f"(upsample_factor {upsample_factor} in {upsample_dims} dimensions)"
        )
    with torch.no_grad():
        kernel = init(conv.weight.new_empty((outputs // scale, *conv.weight.shape[1:])))
        conv.weight.copy_(kernel.repeat_interleave(scale, dim=0))


def _get_convnext_stage(
    in_channels: int, out_channels: int, depth: int, upsample_factor: int | None = None
) -> ConvNeXtStage:
    """Make a ConvNeXt V2 stage that keeps the resolution, with 1x1 convolutions for its MLPs.

    ``upsample_factor`` is that of a pixel shuffle to come: the last layer of the stage is initialised for it.
    """
    stage = ConvNeXtStage(
        in_chs=in_channels,
        out_chs=out_channels,
        stride=1,
        depth=depth,
        ls_init_value=None,
        conv_mlp=True,
        use_grn=True,
        norm_layer=LayerNorm2d,
        norm_layer_cl=LayerNorm2d,
    )
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    if upsample_factor is not None:
        icnr_init(stage.blocks[-1].mlp.fc2, upsample_factor, upsample_dims=2)
    return stage


def upsampling(
    in_channels: int,
    deconv_channels: int,
    scale_factor: int,
    mode: UpsampleMode,
    pre_conv: PreConv,
) -> tuple[nn.Module, int]:
    """Make the layer that enlarges a feature map.

    Parameters
    ----------
    in_channels : int
        Channels of the feature map.
    deconv_channels : int
        Channels that a transposed convolution shall make; a pixel shuffle leaves ``in_channels / scale_factor ** 2``.
    scale_factor : int
        Factor in Y and X.
    mode : {"deconv", "pixelshuffle"}
        Transposed convolution without overlap, or pixel shuffle.
    pre_conv : "default", module or None
        Convolution before the pixel shuffle.

    Returns
    -------
    upsample : torch.nn.Module
        Maps (B, in_channels, H, W) to (B, channels, scale_factor H, scale_factor W).
    channels : int
        Channels after it.

    Raises
    ------
    ValueError
        If the channels are not a multiple of ``scale_factor ** 2``, or ``pre_conv`` is given to a transposed
        convolution.
    """
    one_of("mode", mode, get_args(UpsampleMode))
    positive("scale_factor", scale_factor)
    if mode == "deconv":
        if pre_conv is not None:
            raise ValueError("a convolution before upsampling (pre_conv) is for pixelshuffle, found it with deconv")
        deconv = get_conv_layer(
            2, in_channels, deconv_channels, kernel_size=scale_factor, stride=scale_factor, is_transposed=True
        )
        return deconv, deconv_channels
    channels, rest = divmod(in_channels, scale_factor**2)
    if rest or not channels:
        raise ValueError(
            f"found {in_channels} channels to upsample by pixel shuffle, expected a multiple of {scale_factor**2} "
            f"for scale_factor {scale_factor}"
        )
    if isinstance(pre_conv, str):
        one_of("upsample_pre_conv", pre_conv, ["default"])
    shuffle = UpSample(2, in_channels, channels, scale_factor, mode=mode, pre_conv=pre_conv, apply_pad_pool=False)
    return shuffle, channels


def check_stage(out_channels: int, conv_blocks: int, norm_name: str) -> None:
    """Refuse a stage of a decoder without channels or blocks, or of an unknown normalisation."""
    positive("out_channels", out_channels)
    positive("conv_blocks", conv_blocks)
    one_of("norm_name", norm_name, get_args(NormName))


class UNeXt2UpStage(nn.Module):
    """Upsample a feature map, concatenate the skip connection and convolve.

    Parameters
    ----------
    in_channels, skip_channels, out_channels : int
        Channels of the feature map, of the skip connection, and after the stage.
    scale_factor : int
        Factor in Y and X.
    mode : {"deconv", "pixelshuffle"}
        A transposed convolution and residual units, or a pixel shuffle and a ConvNeXt V2 stage.
    conv_blocks : int
        Number of residual units or ConvNeXt blocks.
    norm_name : {"batch", "instance"}
        Normalisation of the residual units; ConvNeXt blocks have layer normalisation whatever is given.
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
        skip_channels: int,
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
        mid_channels += skip_channels
        if mode == "deconv":
            widths = [mid_channels] + [out_channels] * conv_blocks
            self.conv = nn.Sequential(*(ResidualUnit(2, a, b, norm=norm_name) for a, b in pairwise(widths)))
        else:
            shuffled = scale_factor if out_channels % scale_factor**2 == 0 else None
            self.conv = _get_convnext_stage(mid_channels, out_channels, conv_blocks, shuffled)

    def forward(self, inp: Tensor, skip: Tensor) -> Tensor:
        """Upsample and merge.

        Parameters
        ----------
        inp : Tensor, shape (B, in_channels, H, W)
            The coarser features.
        skip : Tensor, shape (B, skip_channels, scale_factor H, scale_factor W)
            What the encoder made at the finer resolution.

        Returns
        -------
        Tensor, shape (B, out_channels, scale_factor H, scale_factor W)
            The merged features.
        """
        return self.conv(torch.cat([self.upsample(inp), skip], dim=1))


class UNeXt2Decoder(nn.Module):
    """Chain of up stages from the coarsest features to the finest.

    Parameters
    ----------
    num_channels : sequence of int
        Width of each level, coarsest first. All but the last are those of the encoder, the last is what the head takes.
        The skip connection of stage i has ``num_channels[i] // 2`` channels, as encoders have that double their width.
    norm_name, mode, conv_blocks, upsample_pre_conv
        See :class:`UNeXt2UpStage`.
    strides : sequence of int
        Factor of each stage; entries beyond the stages are not used.
    gradient_checkpointing : bool, default False
        Forget the activations of each stage until the backward pass computes them again: less memory, more time.

    Raises
    ------
    ValueError
        If there are fewer than two widths, too few strides, or the widths do not fit the factors.
    """

    def __init__(
        self,
        num_channels: Sequence[int],
        norm_name: NormName,
        mode: UpsampleMode,
        conv_blocks: int,
        strides: Sequence[int],
        upsample_pre_conv: PreConv,
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        n_stages = len(num_channels) - 1
        if n_stages < 1 or len(strides) < n_stages:
            raise ValueError(
                f"found {len(num_channels)} widths and {len(strides)} strides, expected at least two widths, and a "
                "stride for every width but the last"
            )
        self.decoder_stages = nn.ModuleList(
            UNeXt2UpStage(coarse, coarse // 2, fine, stride, mode, conv_blocks, norm_name, upsample_pre_conv)
            for (coarse, fine), stride in zip(pairwise(num_channels), strides, strict=False)
        )
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Merge feature maps.

        Parameters
        ----------
        features : sequence of Tensor, each (B, C, H, W)
            Coarsest first; one more than there are stages. The sequence is left as it is.

        Returns
        -------
        Tensor, shape (B, num_channels[-1], H, W)
            At the resolution of the last feature map.

        Raises
        ------
        ValueError
            If the number of feature maps is another.
        """
        if len(features) != len(self.decoder_stages) + 1:
            raise ValueError(f"found {len(features)} feature maps, expected {len(self.decoder_stages) + 1}")
        x, *skips = features
        for stage, skip in zip(self.decoder_stages, skips, strict=True):
            x = checkpointed(self.gradient_checkpointing, stage, x, skip)
        return x
