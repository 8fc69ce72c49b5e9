"""Random masks over patches, and feature maps reduced to the tokens that a mask leaves visible.

Masks are True where the image is hidden; what functions call ``unmasked`` is the opposite. Every sample of a batch has
the same number of visible tokens, so that they form an array.

He et al., "Masked autoencoders are scalable vision learners", CVPR 2022.
"""

from __future__ import annotations

import torch
from torch import BoolTensor, Tensor

__all__ = ["generate_mask", "masked_patchify", "masked_unpatchify", "upsample_mask"]


def generate_mask(target: torch.Size, stride: int, mask_ratio: float, device: torch.device | str) -> BoolTensor:
    """Draw a random mask over patches, with the same number of hidden ones in every sample.

    Parameters
    ----------
    target : torch.Size
        Shape of the image, (B, ..., Y, X).
    stride : int
        Size of a patch in Y and X.
    mask_ratio : float
        Share of the patches to hide, rounded down to a whole number of them.
    device : torch.device or str
        Where to draw, from the global generator of that device.

    Returns
    -------
    BoolTensor, shape (B, 1, Y // stride, X // stride)
        True where hidden.
    """
    height, width = target[-2] // stride, target[-1] // stride
    hidden = int(height * width * mask_ratio)
    order = torch.rand(target[0], height * width, device=device).argsort(dim=1)
    return (order < hidden).reshape(target[0], 1, height, width)


def upsample_mask(mask: BoolTensor, target: torch.Size) -> BoolTensor:
    """Repeat a mask up to the resolution of an image.

    Parameters
    ----------
    mask : BoolTensor, shape (B, 1, H, W)
        The mask.
    target : torch.Size
        Shape of the image, (B, ..., Y, X).

    Returns
    -------
    BoolTensor, shape (B, 1, Y, X)
        The mask itself where the sizes agree already.

    Raises
    ------
    ValueError
        If Y or X is not a multiple of the mask's height or width.
    """
    height, width = target[-2:]
    if height % mask.shape[-2] or width % mask.shape[-1]:
        raise ValueError(
            f"found a target of {height} x {width} (Y, X), expected multiples of the mask's "
            f"{mask.shape[-2]} x {mask.shape[-1]}"
        )
    if mask.shape[-2:] == target[-2:]:
        return mask
    rows = mask.repeat_interleave(height // mask.shape[-2], dim=-2)
    return rows.repeat_interleave(width // mask.shape[-1], dim=-1)


def masked_patchify(features: Tensor, unmasked: BoolTensor | None = None, n_visible: int | None = None) -> Tensor:
    """Turn a feature map into a list of tokens, those of visible pixels only.

    Parameters
    ----------
    features : Tensor, shape (B, C, H, W)
        The feature map.
    unmasked : BoolTensor, shape (B, 1, H, W), optional
        True where visible; everything is by default.
    n_visible : int, optional
        Visible pixels per sample, where the caller knows; they are counted otherwise, which a compiler cannot follow.

    Returns
    -------
    Tensor, shape (B, L, C)
        The tokens in the order of rows.

    Raises
    ------
    ValueError
        If samples have different numbers of visible pixels.
    """
    tokens = features.flatten(2).transpose(1, 2)  # (B, H W, C)
    if unmasked is None:
        return tokens
    return tokens.gather(1, _visible(unmasked, n_visible).expand(-1, -1, tokens.shape[2]))


def masked_unpatchify(features: Tensor, out_shape: torch.Size, unmasked: BoolTensor | None = None) -> Tensor:
    """Put tokens back to where :func:`masked_patchify` took them from; hidden pixels become zero.

    Parameters
    ----------
    features : Tensor, shape (B, L, C)
        The tokens.
    out_shape : torch.Size
        Shape of the feature map, (B, C, H, W).
    unmasked : BoolTensor, shape (B, 1, H, W), optional
        True where visible.

    Returns
    -------
    Tensor, shape (B, C, H, W)
        The feature map.
    """
    batch, channels, height, width = out_shape
    if unmasked is not None:
        index = _visible(unmasked, features.shape[1]).expand(-1, -1, channels)
        features = features.new_zeros(batch, height * width, channels).scatter(1, index, features)
    return features.transpose(1, 2).reshape(batch, channels, height, width)


def _visible(unmasked: BoolTensor, n_visible: int | None) -> Tensor:
    """Return the positions of the visible pixels of each sample, (B, n_visible, 1), ascending."""
    flat = unmasked.flatten(1)
    if n_visible is None:
        counts = flat.sum(dim=1).tolist()
        n_visible = counts[0]
        if min(counts) != max(counts):
            raise ValueError(
                f"found from {min(counts)} to {max(counts)} visible pixels per sample, expected the same number in each"
            )
    return flat.int().argsort(dim=1, descending=True, stable=True)[:, :n_visible, None]
