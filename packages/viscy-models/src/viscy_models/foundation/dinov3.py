"""DINOv3 (Siméoni et al., "DINOv3", arXiv:2508.10104): vision transformers and ConvNeXts trained on photographs."""

from __future__ import annotations

import re
from os import PathLike
from typing import Any

from torch import nn

from viscy_models.foundation.timm_encoder import TimmEncoder

__all__ = ["DINOv3Model"]

_PUBLISHED = re.compile(r"(?:facebook/)?dinov3-(?P<network>.+)-pretrain-(?P<data>[a-z0-9]+)")
_TRANSFORMERS = {
    "vits16": "vit_small_patch16_dinov3",
    "vits16plus": "vit_small_plus_patch16_dinov3",
    "vitb16": "vit_base_patch16_dinov3",
    "vitl16": "vit_large_patch16_dinov3",
    "vith16plus": "vit_huge_plus_patch16_dinov3",
    "vit7b16": "vit_7b_patch16_dinov3",
}
_CONVNEXTS = ("convnext-tiny", "convnext-small", "convnext-base", "convnext-large")


class DINOv3Model(TimmEncoder):
    """Encode each channel by a network of DINOv3, as timm has it.

    Parameters
    ----------
    model_name : str
        Name of timm, such as ``vit_small_patch16_dinov3.lvd1689m``, or the one that the weights were published under,
        such as ``facebook/dinov3-vits16-pretrain-lvd1689m``.
    freeze : bool, default True
        Whether the network stays as it is.
    projection : torch.nn.Module, optional
        From features to projections.
    pretrained : bool or path, default True
        True gets the weights from timm's cache or the network, a path from a local file; False starts at random.
    **options
        Further options of `TimmEncoder`: ``in_channels``, ``channels``, ``plane``, ``img_size``, ``projection_dim`` ...

    Raises
    ------
    ValueError
        If no network of DINOv3 has the name.
    """

    def __init__(
        self,
        model_name: str,
        freeze: bool = True,
        projection: nn.Module | None = None,
        *,
        pretrained: bool | str | PathLike[str] = True,
        **options: Any,
    ) -> None:
        super().__init__(_timm_name(model_name), freeze, projection, pretrained=pretrained, **options)


def _timm_name(name: str) -> str:
    published = _PUBLISHED.fullmatch(name)
    if published is None:
        if "dinov3" not in name:
            raise ValueError(
                f"model_name: found {name!r}, expected a network of DINOv3, such as vit_small_patch16_dinov3.lvd1689m; "
                "viscy_models.foundation.TimmEncoder takes any model of timm"
            )
        return name
    network, data = published["network"], published["data"]
    if network in _TRANSFORMERS:
        return f"{_TRANSFORMERS[network]}.{data}"
    if network in _CONVNEXTS:
        return f"{network.replace('-', '_')}.dinov3_{data}"
    raise ValueError(
        f"model_name: found {name!r}, expected one of {', '.join([*_TRANSFORMERS, *_CONVNEXTS])} between dinov3- and "
        "-pretrain-"
    )
