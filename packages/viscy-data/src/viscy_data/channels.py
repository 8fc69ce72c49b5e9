"""Channels of a patch by name: what dictionary transforms need, and the final crop.

>>> import torch
>>> patch = torch.ones(4, 2, 5, 16, 16)
>>> doubled = transform_channelwise(lambda d: {**d, "Phase": d["Phase"] * 2}, ["Phase", "GFP"], patch, None)
>>> doubled[0, :, 0, 0, 0]
tensor([2., 1.])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["center_crop", "channel_keys", "gather_channels", "scatter_channels", "transform_channelwise"]


def channel_keys(n_channels: int) -> list[str]:
    """Name channels by position, since their names differ between experiments: ``ch_0``, ``ch_1``, ..."""
    return [f"ch_{position}" for position in range(n_channels)]


def scatter_channels(names: Sequence[str], patch: Tensor) -> dict[str, Tensor]:
    """Split a batch of patches by channel.

    Parameters
    ----------
    names : sequence of str
        One unique name per channel.
    patch : Tensor, shape (B, C, Z, Y, X)

    Returns
    -------
    dict of str to Tensor
        Views of ``patch``, each of shape (B, 1, Z, Y, X), in the order of ``names``.

    Raises
    ------
    ValueError
        If the names are not one per channel, or not unique.
    """
    if len(names) != patch.shape[1] or len(set(names)) != len(names):
        raise ValueError(f"{patch.shape[1]} channels need as many unique names, got {list(names)}")
    return dict(zip(names, patch.split(1, dim=1), strict=True))


def gather_channels(channels: Mapping[str, Any], names: Sequence[str]) -> Tensor:
    """Concatenate channels by name; other entries of the mapping are left out.

    Returns
    -------
    Tensor, shape (B, C, Z, Y, X)
        A new tensor, channels in the order of ``names``.

    Raises
    ------
    KeyError
        If a name is missing.
    """
    if missing := [name for name in names if name not in channels]:
        raise KeyError(f"channels {missing} are missing; there are {list(channels)}")
    return torch.cat([channels[name] for name in names], dim=1)


def transform_channelwise(
    transform: Callable[[dict[str, Any]], Mapping[str, Any]],
    names: Sequence[str],
    patch: Tensor,
    norm_meta: Mapping[str, Any] | None,
) -> Tensor:
    """Apply a dictionary transform to the channels of a batch.

    Parameters
    ----------
    transform : callable
        Takes and returns a mapping of channel name to (B, 1, Z, Y, X).
    names : sequence of str
        Names of the channels, which are the keys that the transform sees.
    patch : Tensor, shape (B, C, Z, Y, X)
    norm_meta : mapping, optional
        Collated statistics, handed over under the key ``"norm_meta"`` when there are any.

    Returns
    -------
    Tensor, shape (B, C, z, y, x)
        As large as the transform makes it.
    """
    channels: dict[str, Any] = scatter_channels(names, patch)
    if norm_meta:
        channels["norm_meta"] = norm_meta
    return gather_channels(transform(channels), names)


def center_crop(patch: Tensor, size: Sequence[int]) -> Tensor:
    """Crop the trailing axes about their centre, by the rule of MONAI's ``CenterSpatialCrop``.

    Parameters
    ----------
    patch : Tensor, shape (..., Z, Y, X)
    size : sequence of int
        Extent of as many trailing axes; the crop starts at ``n // 2 - size // 2``.

    Returns
    -------
    Tensor
        A view of ``patch``.

    Raises
    ------
    ValueError
        If a size is not positive or exceeds the image.
    """
    extent = tuple(patch.shape[-len(size) :])
    if len(extent) != len(size) or any(not 0 < s <= n for s, n in zip(size, extent, strict=True)):
        raise ValueError(f"centre crop of {tuple(size)} does not fit an image of {extent}")
    starts = [n // 2 - s // 2 for s, n in zip(size, extent, strict=True)]
    return patch[(..., *(slice(start, start + s) for start, s in zip(starts, size, strict=True)))]
