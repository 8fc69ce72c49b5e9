"""Encoder of the masked autoencoder: a projection of patches, and stages that halve the resolution."""

from __future__ import annotations

from collections.abc import Sequence

from torch import BoolTensor, Tensor, nn

from viscy_models._components.arguments import positive
from viscy_models._components.stems import folded_channels, stem_triple
from viscy_models.unet.masked_convnext import MaskedConvNeXtV2Stage
from viscy_models.unet.masking import generate_mask, masked_patchify, masked_unpatchify, upsample_mask

__all__ = ["MaskedAdaptiveProjection", "MaskedMultiscaleEncoder"]


class MaskedAdaptiveProjection(nn.Module):
    """Project the patches of a stack or of a single slice; each has a convolution of its own.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    out_channels : int
        Width of the feature map.
    kernel_size_2d : int or tuple of int, default 4
        Size of a patch in Y and X.
    kernel_depth : int, default 5
        Size of a patch in Z.
    in_stack_depth : int, default 5
        Number of z slices of a stack, a multiple of ``kernel_depth``.

    Raises
    ------
    ValueError
        If the kernel depth does not divide the stack, or the remaining slices the width; the message says what fits.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size_2d: tuple[int, int] | int = 4,
        kernel_depth: int = 5,
        in_stack_depth: int = 5,
    ) -> None:
        super().__init__()
        positive("in_channels", in_channels)
        patch = (kernel_size_2d,) * 2 if isinstance(kernel_size_2d, int) else tuple(kernel_size_2d)
        kernel = stem_triple("stem_kernel_size", (kernel_depth, *patch))
        channels = folded_channels(out_channels, kernel_depth, in_stack_depth)
        self.conv3d = nn.Conv3d(in_channels, channels, kernel_size=kernel, stride=kernel)
        self.conv2d = nn.Conv2d(in_channels, out_channels, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor, unmasked: BoolTensor | None = None, n_visible: int | None = None) -> Tensor:
        """Turn an image into a feature map.

        Parameters
        ----------
        x : Tensor, shape (B, in_channels, Z, Y, X)
            A stack, or a single slice.
        unmasked : BoolTensor, shape (B, 1, Y / kernel, X / kernel), optional
            True where visible; everything is by default.
        n_visible : int, optional
            Visible patches per sample; see :func:`~viscy_models.unet.masking.masked_patchify`.

        Returns
        -------
        Tensor, shape (B, out_channels, Y / kernel, X / kernel)
            Zero where hidden.
        """
        x = self.conv3d(x).flatten(1, 2) if x.shape[2] > 1 else self.conv2d(x.squeeze(2))
        tokens = self.norm(masked_patchify(x, unmasked, n_visible))
        return masked_unpatchify(tokens, x.shape, unmasked)


class MaskedMultiscaleEncoder(nn.Module):
    """Encode the visible patches of an image at several resolutions.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    stage_blocks : sequence of int, default (3, 3, 9, 3)
        Blocks of each stage.
    dims : sequence of int, default (96, 192, 384, 768)
        Width of each stage.
    drop_path_rate : float, default 0.0
        Rate of stochastic depth of every block.
    stem_kernel_size : sequence of int, default (5, 4, 4)
        Size of a patch in (Z, Y, X), square in Y and X.
    in_stack_depth : int, default 5
        Number of z slices of a stack.
    gradient_checkpointing : bool, default False
        Compute the blocks again in the backward pass instead of keeping their activations.

    Attributes
    ----------
    total_stride : int
        Size in pixels of a cell of the coarsest feature map, and of the mask.

    Raises
    ------
    ValueError
        If there are not as many widths as numbers of blocks, or the stem does not fit the stack.
    """

    def __init__(
        self,
        in_channels: int,
        stage_blocks: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (96, 192, 384, 768),
        drop_path_rate: float = 0.0,
        stem_kernel_size: Sequence[int] = (5, 4, 4),
        in_stack_depth: int = 5,
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        kernel_depth, *patch = stem_triple("stem_kernel_size", stem_kernel_size)
        _check_stages(stage_blocks, dims, drop_path_rate, patch)
        self.stem = MaskedAdaptiveProjection(in_channels, dims[0], tuple(patch), kernel_depth, in_stack_depth)
        self.stages = nn.ModuleList(
            MaskedConvNeXtV2Stage(
                dims[max(i - 1, 0)],
                width,
                stride=1 if i == 0 else 2,
                num_blocks=n_blocks,
                drop_path_rates=[drop_path_rate] * n_blocks,
                gradient_checkpointing=gradient_checkpointing,
            )
            for i, (n_blocks, width) in enumerate(zip(stage_blocks, dims, strict=True))
        )
        self.total_stride = patch[0] * 2 ** (len(dims) - 1)
        self.apply(_initialise)

    def forward(self, x: Tensor, mask_ratio: float = 0.0) -> tuple[list[Tensor], BoolTensor | None]:
        """Encode a batch.

        Parameters
        ----------
        x : Tensor, shape (B, in_channels, Z, Y, X)
            Images; Y and X multiples of ``total_stride``.
        mask_ratio : float, default 0.0
            Share of the cells of ``total_stride`` pixels to hide, from 0 to below 1.

        Returns
        -------
        features : list of Tensor, each (B, width, H, W)
            One of each stage, finest first; zero where hidden.
        mask : BoolTensor, shape (B, 1, Y, X), or None
            True where hidden; None without a mask.
        """
        mask, unmasked, n_visible = None, None, None
        if mask_ratio > 0:
            mask = generate_mask(x.shape, self.total_stride, mask_ratio, x.device)
            cells = mask.shape[-2] * mask.shape[-1]
            unmasked, n_visible = ~mask, cells - int(cells * mask_ratio)
            mask = upsample_mask(mask, x.shape)
        x = self._embed(x, unmasked, n_visible)
        features = []
        for stage in self.stages:
            x = stage(x, unmasked, n_visible)
            features.append(x)
        return features, mask

    def _embed(self, x: Tensor, unmasked: BoolTensor | None, n_visible: int | None) -> Tensor:
        if unmasked is None:
            return self.stem(x)
        scale = 2 ** (len(self.stages) - 1)  # patches along a cell of the mask
        fine = unmasked.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)
        return self.stem(x, fine, n_visible * scale**2)


def _check_stages(
    stage_blocks: Sequence[int], dims: Sequence[int], drop_path_rate: float, patch: Sequence[int]
) -> None:
    if len(stage_blocks) != len(dims) or not dims:
        raise ValueError(
            f"found {len(stage_blocks)} numbers of blocks and {len(dims)} dims, expected one of each for every stage"
        )
    for count in (*stage_blocks, *dims):
        positive("a number of blocks or of dims", count)
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate is {drop_path_rate}, expected a rate from 0 to below 1")
    if patch[0] != patch[1]:
        raise ValueError(f"stem_kernel_size has {patch[0]} x {patch[1]} in (Y, X), expected a square")


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
