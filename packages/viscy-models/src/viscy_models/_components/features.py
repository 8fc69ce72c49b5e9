"""Feature maps of a timm backbone whose first convolution is left to a 3D stem."""

from __future__ import annotations

from os import PathLike

import timm
from torch import nn

from viscy_models._components.arguments import did_you_mean
from viscy_models._components.backbones import create_backbone
from viscy_models._components.checkpointing import checkpoint_blocks

__all__ = ["feature_backbone", "feature_widths"]

_FIRST = ("stem_0", "conv1")  # of ConvNeXt and of ResNet


def feature_backbone(
    name: str,
    families: tuple[str, ...],
    *,
    pretrained: bool | str | PathLike[str] = False,
    drop_path_rate: float = 0.0,
    gradient_checkpointing: bool = False,
) -> nn.ModuleDict:
    """Create a backbone that returns one feature map per resolution, with an identity for its first convolution.

    Parameters
    ----------
    name : str
        A model of timm, with or without the tag of its weights (``convnext_tiny.fb_in22k``).
    families : tuple of str
        What the name may begin with.
    pretrained : bool or path, default False
        See :func:`create_backbone`.
    drop_path_rate : float, default 0.0
        Stochastic depth.
    gradient_checkpointing : bool, default False
        Compute the blocks again in the backward pass instead of keeping their activations.

    Returns
    -------
    torch.nn.ModuleDict
        Maps (B, width of the stem, H, W) to a list of feature maps, finest first; see :func:`feature_widths`.

    Raises
    ------
    ValueError
        If timm has no such model, or it does not begin with one convolution and a normalisation.
    """
    _check_name(name, families)
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate is {drop_path_rate}, expected a rate from 0 to below 1")
    backbone = create_backbone(name, pretrained, features_only=True, drop_path_rate=drop_path_rate)
    names = list(backbone.keys())
    first, second = backbone[names[0]], backbone[names[1]]
    if names[0] not in _FIRST or not isinstance(first, nn.Conv2d) or isinstance(second, nn.Conv2d | nn.GELU):
        raise ValueError(
            f"backbone {name!r} does not begin with one convolution that a 3D stem could replace, expected one like "
            f"{' or '.join(repr(_example(family)) for family in families)}"
        )
    backbone[names[0]] = nn.Identity()
    if gradient_checkpointing:
        checkpoint_blocks(backbone)
    return backbone


def feature_widths(backbone: nn.ModuleDict) -> list[int]:
    """Return the channels of each feature map, finest first; the first are also those that the stem must make."""
    return backbone.feature_info.channels()


def _check_name(name: str, families: tuple[str, ...]) -> None:
    known = timm.list_models([f"{family}*" for family in families])
    architecture, _, tag = str(name).partition(".")
    if architecture not in known:
        hint = did_you_mean(architecture, known)
        examples = ", ".join(_example(family) for family in families)
        raise ValueError(
            f"unknown backbone {name!r}{hint}, expected a {' or '.join(families)} model of timm such as {examples}"
        )
    if tag and name not in timm.list_models(name, include_tags=True):
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*"))
        raise ValueError(f"unknown weights {name!r}, expected {architecture} or one of {tags}")


def _example(family: str) -> str:
    return {"convnext": "convnext_tiny", "convnextv2": "convnextv2_tiny", "resnet": "resnet50"}.get(family, family)
