"""Blocks and stages of a ConvNeXt V2 that sees the visible part of an image only.

Woo et al., "ConvNeXt V2: Co-designing and scaling ConvNets with masked autoencoders", CVPR 2023. Hidden pixels are zero
for the depthwise convolution and are left out of everything that works on single pixels, so that time is saved in
proportion.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import DropPath, GlobalResponseNormMlp, LayerNorm2d, create_conv2d
from timm.models.convnext import Downsample
from torch import BoolTensor, Tensor, nn

from viscy_models._components.arguments import positive
from viscy_models._components.checkpointing import checkpointed
from viscy_models.unet.masking import masked_patchify, masked_unpatchify, upsample_mask

__all__ = ["MaskedConvNeXtV2Block", "MaskedConvNeXtV2Stage"]


class MaskedConvNeXtV2Block(nn.Module):
    """Depthwise convolution, layer normalisation and an MLP with global response normalisation, plus the input.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    out_channels : int, optional
        Channels of the output, a multiple of those of the input; as many by default.
    kernel_size : int, default 7
        Kernel of the depthwise convolution.
    stride : int, default 1
        Stride of the depthwise convolution.
    mlp_ratio : int, default 4
        Hidden width of the MLP in units of ``out_channels``.
    drop_path : float, default 0.0
        Rate of stochastic depth.

    Raises
    ------
    ValueError
        If ``out_channels`` is not a multiple of ``in_channels``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int = 7,
        stride: int = 1,
        mlp_ratio: int = 4,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        out_channels = out_channels or in_channels
        if out_channels % in_channels:
            raise ValueError(
                f"out_channels is {out_channels}, expected a multiple of in_channels {in_channels} for a depthwise "
                "convolution"
            )
        self.stride = stride
        self.dwconv = create_conv2d(
            in_channels, out_channels, kernel_size=kernel_size, stride=stride, depthwise=True, bias=False
        )
        self.layernorm = nn.LayerNorm(out_channels)
        self.mlp = GlobalResponseNormMlp(out_channels, hidden_features=mlp_ratio * out_channels)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else Downsample(in_channels, out_channels, stride)

    def forward(self, x: Tensor, unmasked: BoolTensor | None = None, n_visible: int | None = None) -> Tensor:
        """Transform a feature map.

        Parameters
        ----------
        x : Tensor, shape (B, in_channels, H, W)
            The features; they are left as they are.
        unmasked : BoolTensor, shape (B, 1, H, W), optional
            True where visible; everything is by default. With a stride, H and W are those of the output.
        n_visible : int, optional
            Visible pixels per sample; see :func:`~viscy_models.unet.masking.masked_patchify`.

        Returns
        -------
        Tensor, shape (B, out_channels, H, W)
            Zero where hidden.
        """
        if unmasked is not None:
            x = x * upsample_mask(unmasked, x.shape)
        shortcut = self.shortcut(x)
        x = self.dwconv(x)
        tokens = self.layernorm(masked_patchify(x, unmasked, n_visible))
        tokens = self.mlp(tokens.unsqueeze(1)).squeeze(1)  # normalises over the visible pixels
        return self.drop_path(masked_unpatchify(tokens, x.shape, unmasked)) + shortcut


class MaskedConvNeXtV2Stage(nn.Module):
    """Halve the resolution, then transform in a row of blocks.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    kernel_size : int, default 7
        Kernel of the depthwise convolutions.
    stride : int, default 2
        Kernel and stride of the convolution that downsamples. With 1 and equal widths there is none.
    num_blocks : int, default 2
        Number of blocks.
    drop_path_rates : sequence of float, optional
        Rate of stochastic depth of each block; 0 by default.
    gradient_checkpointing : bool, default False
        Compute the blocks again in the backward pass instead of keeping their activations.

    Raises
    ------
    ValueError
        If the number of rates is not that of the blocks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 7,
        stride: int = 2,
        num_blocks: int = 2,
        drop_path_rates: Sequence[float] | None = None,
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        positive("num_blocks", num_blocks)
        rates = [0.0] * num_blocks if drop_path_rates is None else list(drop_path_rates)
        if len(rates) != num_blocks:
            raise ValueError(f"drop_path_rates has {len(rates)} numbers, expected {num_blocks}: one for each block")
        if in_channels == out_channels and stride == 1:
            self.downsample = nn.Identity()
        else:
            conv = nn.Conv2d(in_channels, out_channels, kernel_size=stride, stride=stride)
            self.downsample = nn.Sequential(LayerNorm2d(in_channels), conv)
        self.blocks = nn.ModuleList(
            MaskedConvNeXtV2Block(out_channels, kernel_size=kernel_size, drop_path=rate) for rate in rates
        )
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, x: Tensor, unmasked: BoolTensor | None = None, n_visible: int | None = None) -> Tensor:
        """Transform a feature map.

        Parameters
        ----------
        x : Tensor, shape (B, in_channels, H, W)
            The features; they are left as they are.
        unmasked : BoolTensor, shape (B, 1, h, w), optional
            True where visible, at the resolution of the output or coarser; everything is by default.
        n_visible : int, optional
            True values per sample in ``unmasked``, where the caller knows; they are counted otherwise, which a compiler
            cannot follow.

        Returns
        -------
        Tensor, shape (B, out_channels, H / stride, W / stride)
            Zero where hidden.
        """
        x = self.downsample(x)
        if unmasked is not None:
            cells = unmasked.shape[-2] * unmasked.shape[-1]
            unmasked = upsample_mask(unmasked, x.shape)
            if n_visible is not None:
                n_visible *= x.shape[-2] * x.shape[-1] // cells
        for block in self.blocks:
            x = checkpointed(self.gradient_checkpointing, block, x, unmasked, n_visible)
        return x
