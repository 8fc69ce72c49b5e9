"""Fully convolutional masked autoencoder, for pretraining on stacks without labels and fine-tuning on translation.

Woo et al., "ConvNeXt V2: Co-designing and scaling ConvNets with masked autoencoders", CVPR 2023, with the decoder of
UNeXt2: Liu et al., "Robust virtual staining of landmark organelles with Cytoland", Nature Machine Intelligence 2025.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import BoolTensor, Tensor

from viscy_models._components.arguments import positive
from viscy_models._components.blocks import UNeXt2Decoder
from viscy_models._components.heads import PixelToVoxelHead, PixelToVoxelShuffleHead
from viscy_models._components.inputs import require_stack
from viscy_models._components.memory_format import MixedFormatModule
from viscy_models.unet.masked_convnext import MaskedConvNeXtV2Block, MaskedConvNeXtV2Stage
from viscy_models.unet.masked_encoder import MaskedAdaptiveProjection, MaskedMultiscaleEncoder
from viscy_models.unet.masking import generate_mask, masked_patchify, masked_unpatchify, upsample_mask

__all__ = [
    "FullyConvolutionalMAE",
    "MaskedAdaptiveProjection",
    "MaskedConvNeXtV2Block",
    "MaskedConvNeXtV2Stage",
    "MaskedMultiscaleEncoder",
    "generate_mask",
    "masked_patchify",
    "masked_unpatchify",
    "upsample_mask",
]


class FullyConvolutionalMAE(MixedFormatModule):
    """Reconstruct the hidden part of a stack, or translate a whole one.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    encoder_blocks : sequence of int, default (3, 3, 9, 3)
        Blocks of each stage of the encoder.
    dims : sequence of int, default (96, 192, 384, 768)
        Width of each stage; each twice the one before.
    encoder_drop_path_rate : float, default 0.0
        Rate of stochastic depth of every block of the encoder.
    stem_kernel_size : sequence of int, default (5, 4, 4)
        Size of a patch in (Z, Y, X), square in Y and X.
    in_stack_depth : int, default 5
        Number of z slices of the input and of the output, a multiple of the stem's kernel depth.
    decoder_conv_blocks : int, default 1
        Blocks of each stage of the decoder.
    pretraining : bool, default True
        Whether the mask is returned too.
    head_conv : bool, default False
        End in a 3D convolution instead of a pixel shuffle alone. It enlarges fourfold, whatever the stem.
    head_conv_expansion_ratio : int, default 4
        Width of that convolution, in units of its output; what it takes is that wide in units of the input's channels.
    head_conv_pool : bool, default True
        Average neighbouring pixels in that head, against checkerboards.
    gradient_checkpointing : bool, default False
        Compute the blocks of the encoder and the stages of the decoder again in the backward pass instead of keeping
        their activations.

    Attributes
    ----------
    out_stack_depth : int
        Number of z slices of the output.
    num_blocks : int
        Number of times that Y and X should be divisible by two: predictions are padded to multiples of 2^num_blocks.
    pretraining : bool
        May be changed at any time.

    Raises
    ------
    ValueError
        If an argument is out of range, the widths do not double, or the stem does not fit the stack; the message says
        what fits.

    Examples
    --------
    >>> import torch
    >>> model = FullyConvolutionalMAE(1, 1, encoder_blocks=(1, 1), dims=(16, 32))
    >>> reconstruction, mask = model(torch.zeros(2, 1, 5, 16, 16), mask_ratio=0.5)
    >>> tuple(reconstruction.shape), int(mask[0].sum())
    ((2, 1, 5, 16, 16), 128)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        encoder_blocks: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (96, 192, 384, 768),
        encoder_drop_path_rate: float = 0.0,
        stem_kernel_size: Sequence[int] = (5, 4, 4),
        in_stack_depth: int = 5,
        decoder_conv_blocks: int = 1,
        pretraining: bool = True,
        head_conv: bool = False,
        head_conv_expansion_ratio: int = 4,
        head_conv_pool: bool = True,
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        positive("out_channels", out_channels)
        positive("in_stack_depth", in_stack_depth)
        positive("head_conv_expansion_ratio", head_conv_expansion_ratio)
        _check_widths(dims)
        self.encoder = MaskedMultiscaleEncoder(
            in_channels,
            encoder_blocks,
            dims,
            encoder_drop_path_rate,
            stem_kernel_size,
            in_stack_depth,
            gradient_checkpointing=gradient_checkpointing,
        )
        scale = stem_kernel_size[-1]
        if head_conv:
            # As checkpoints have it: the channels of the input, not of the output, set this width.
            head_channels = (in_stack_depth + 2) * in_channels * 4 * head_conv_expansion_ratio
        else:
            head_channels = out_channels * in_stack_depth * scale**2
        self.decoder = UNeXt2Decoder(
            [*reversed(dims[1:]), head_channels],
            norm_name="instance",
            mode="pixelshuffle",
            conv_blocks=decoder_conv_blocks,
            strides=[2] * (len(dims) - 1),
            upsample_pre_conv=None,
            gradient_checkpointing=gradient_checkpointing,
        )
        if head_conv:
            self.head = PixelToVoxelHead(
                head_channels, out_channels, in_stack_depth, head_conv_expansion_ratio, head_conv_pool
            )
        else:
            self.head = PixelToVoxelShuffleHead(head_channels, out_channels, in_stack_depth, scale, pool=True)
        self.in_channels, self.out_stack_depth = in_channels, in_stack_depth
        self.num_blocks = len(dims) * int(math.log2(scale))
        self.pretraining = pretraining

    def forward(self, x: Tensor, mask_ratio: float = 0.0) -> Tensor | tuple[Tensor, BoolTensor | None]:
        """Reconstruct or translate a batch.

        Parameters
        ----------
        x : Tensor, shape (B, in_channels, Z, Y, X)
            Normalised images of ``in_stack_depth`` slices or a single one; Y and X multiples of the stem's kernel times
            ``2 ** (len(dims) - 1)``, which is 32 by default. They are left as they are.
        mask_ratio : float, default 0.0
            Share of the image to hide, from 0 to below 1, in cells of that size.

        Returns
        -------
        output : Tensor, shape (B, out_channels, out_stack_depth, Y, X)
            The reconstruction of everything, hidden or not.
        mask : BoolTensor, shape (B, 1, Y, X), or None
            True where hidden; None without a mask. Only with ``pretraining``.

        Raises
        ------
        ValueError
            If the shape is another (the message has both), or the ratio out of range.
        """
        if not 0 <= mask_ratio < 1:
            raise ValueError(f"mask_ratio is {mask_ratio}, expected a share from 0 to below 1")
        stride = self.encoder.total_stride
        depths = tuple(sorted({1, self.out_stack_depth}))
        require_stack(x, self.in_channels, depths, (stride, stride))
        features, mask = self.encoder(x, mask_ratio=mask_ratio)
        x = self.head(self.decoder(features[::-1]))
        return (x, mask) if self.pretraining else x


def _check_widths(dims: Sequence[int]) -> None:
    """Refuse widths that the skip connections of the decoder do not fit."""
    if len(dims) < 2 or any(fine * 2 != coarse for fine, coarse in pairwise(dims)):
        raise ValueError(
            f"dims is {tuple(dims)}, expected two widths or more, each twice the one before, such as "
            f"{tuple(dims[0] * 2**i for i in range(max(len(dims), 2))) if dims else (96, 192, 384, 768)}"
        )
    if dims[1] % 4:
        raise ValueError(f"dims begins with {dims[0]}, expected an even number: the decoder shuffles in fours")
