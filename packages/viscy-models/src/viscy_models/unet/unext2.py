"""UNeXt2: a ConvNeXt V2 encoder on a projected stack, a decoder with skip connections, and a head that makes a stack.

Liu et al., "Robust virtual staining of landmark organelles with Cytoland", Nature Machine Intelligence 2025 (the
network); Woo et al., "ConvNeXt V2", CVPR 2023 (the backbone).
"""

from __future__ import annotations

from os import PathLike

from torch import Tensor

from viscy_models._components.arguments import positive
from viscy_models._components.blocks import NormName, UNeXt2Decoder, UpsampleMode
from viscy_models._components.features import feature_backbone, feature_widths
from viscy_models._components.heads import PixelToVoxelHead
from viscy_models._components.inputs import require_stack
from viscy_models._components.memory_format import MixedFormatModule
from viscy_models._components.stems import UNeXt2Stem, stem_triple

__all__ = ["UNeXt2"]


class UNeXt2(MixedFormatModule):
    """Translate a stack into another one: label-free images to fluorescence, for instance.

    Parameters
    ----------
    in_channels, out_channels : int, default 1
        Channels of the input and of the output.
    in_stack_depth : int, default 5
        Number of z slices of the input, a multiple of the stem's kernel depth.
    out_stack_depth : int, optional
        Number of z slices of the output; as many as come in by default.
    backbone : str, default "convnextv2_tiny"
        A ConvNeXt or ConvNeXt V2 of timm, of any width.
    pretrained : bool or path, default False
        Start the backbone from timm's weights: True gets them from its cache or the network, a path from a local file.
        Stem, decoder and head are always initialised at random.
    stem_kernel_size : tuple of int, default (5, 4, 4)
        Kernel and stride of the stem in (Z, Y, X). The head enlarges fourfold: with a kernel of 2 in Y and X the output
        has twice the resolution of the input.
    decoder_mode : {"pixelshuffle", "deconv"}, default "pixelshuffle"
        How the decoder upsamples: by pixel shuffle between ConvNeXt V2 blocks, or by transposed convolution between
        residual units.
    decoder_conv_blocks : int, default 2
        Blocks of each stage of the decoder.
    decoder_norm_layer : {"instance", "batch"}, default "instance"
        Normalisation of the residual units of ``deconv``; the blocks of ``pixelshuffle`` have layer normalisation.
    decoder_upsample_pre_conv : bool, default False
        Convolve before each pixel shuffle.
    head_pool : bool, default False
        Average neighbouring pixels in the head, against checkerboards.
    head_expansion_ratio : int, default 4
        Width of the head's 3D convolution, in units of its output.
    drop_path_rate : float, default 0.0
        Stochastic depth of the backbone.
    gradient_checkpointing : bool, default False
        Compute the blocks of the backbone and the stages of the decoder again in the backward pass instead of keeping
        their activations.

    Attributes
    ----------
    out_stack_depth : int
        Number of z slices of the output.

    Raises
    ------
    ValueError
        If an argument is out of range, the backbone is unknown, or the stem does not fit the stack or the backbone; the
        message says what fits.

    Examples
    --------
    >>> import torch
    >>> model = UNeXt2(in_channels=1, out_channels=2, backbone="convnextv2_atto")
    >>> tuple(model(torch.zeros(1, 1, 5, 64, 32)).shape)
    (1, 2, 5, 64, 32)
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        in_stack_depth: int = 5,
        out_stack_depth: int | None = None,
        backbone: str = "convnextv2_tiny",
        pretrained: bool | str | PathLike[str] = False,
        stem_kernel_size: tuple[int, int, int] = (5, 4, 4),
        decoder_mode: UpsampleMode = "pixelshuffle",
        decoder_conv_blocks: int = 2,
        decoder_norm_layer: NormName = "instance",
        decoder_upsample_pre_conv: bool = False,
        head_pool: bool = False,
        head_expansion_ratio: int = 4,
        drop_path_rate: float = 0.0,
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if out_stack_depth is None:
            out_stack_depth = in_stack_depth
        for name, count in (
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("in_stack_depth", in_stack_depth),
            ("out_stack_depth", out_stack_depth),
            ("decoder_conv_blocks", decoder_conv_blocks),
            ("head_expansion_ratio", head_expansion_ratio),
        ):
            positive(name, count)
        kernel = stem_triple("stem_kernel_size", stem_kernel_size)
        encoder = feature_backbone(
            backbone,
            ("convnext", "convnextv2"),
            pretrained=pretrained,
            drop_path_rate=drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
        )
        widths = feature_widths(encoder)
        self.in_channels, self.in_stack_depth, self.out_stack_depth = in_channels, in_stack_depth, out_stack_depth
        self._multiples = tuple(size * 2 ** (len(widths) - 1) for size in kernel[1:])
        self.encoder_stages = encoder
        self.stem = UNeXt2Stem(in_channels, widths[0], kernel, in_stack_depth)
        head_channels = (out_stack_depth + 2) * out_channels * 4 * head_expansion_ratio
        self.decoder = UNeXt2Decoder(
            [*reversed(widths[1:]), head_channels],
            norm_name=decoder_norm_layer,
            mode=decoder_mode,
            conv_blocks=decoder_conv_blocks,
            strides=[2] * (len(widths) - 1),
            upsample_pre_conv="default" if decoder_upsample_pre_conv else None,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.head = PixelToVoxelHead(head_channels, out_channels, out_stack_depth, head_expansion_ratio, head_pool)

    @property
    def num_blocks(self) -> int:
        """Number of times that Y and X should be divisible by two: predictions are padded to multiples of 2^6."""
        return 6

    def forward(self, x: Tensor) -> Tensor:
        """Translate a batch.

        Parameters
        ----------
        x : Tensor, shape (B, in_channels, in_stack_depth, Y, X)
            Normalised images; Y and X multiples of 32 with the default stem.

        Returns
        -------
        Tensor, shape (B, out_channels, out_stack_depth, Y, X)
            The translation, at the input's resolution when the stem's kernel is 4 in Y and X.

        Raises
        ------
        ValueError
            If the shape is another; the message has both.
        """
        require_stack(x, self.in_channels, (self.in_stack_depth,), self._multiples)
        features = self.encoder_stages(self.stem(x))
        return self.head(self.decoder(features[::-1]))
