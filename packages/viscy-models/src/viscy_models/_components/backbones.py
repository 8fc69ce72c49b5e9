"""2D backbones of timm, with weights of its own or of a local file."""

from __future__ import annotations

from collections import defaultdict
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from torch import nn

from viscy_models.torch_file import check_torch_file

__all__ = ["create_backbone"]


def create_backbone(name: str, pretrained: bool | str | PathLike[str] = False, **options: Any) -> nn.Module:
    """Create a model of timm.

    Parameters
    ----------
    name : str
        Name of the model.
    pretrained : bool or path, default False
        True starts from timm's weights, downloaded unless they are in its cache; a path from a local file of them
        (``.safetensors``, or a state dict), without network.
    **options
        Further arguments of ``timm.create_model``.

    Returns
    -------
    torch.nn.Module
        The model.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds the weights of another model.
    """
    if isinstance(pretrained, bool):
        return timm.create_model(name, pretrained=pretrained, **options)
    path = Path(pretrained)
    if not path.is_file():
        raise FileNotFoundError(f"pretrained is {str(path)!r}: no such file, expected one, True or False")
    try:
        if path.suffix != ".safetensors":
            check_torch_file(path)
        backbone = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **options)
    except (KeyError, RuntimeError, UnpicklingError) as err:
        raise ValueError(f"pretrained file {path} does not fit {name}: {type(err).__name__} {err}") from err
    _require_all(backbone, name, path)
    return backbone


def _require_all(backbone: nn.Module, name: str, path: Path) -> None:
    """Refuse a backbone of which parameters stayed random: timm takes what it finds, and renames it."""
    found = defaultdict(list)
    for value in timm.models.load_state_dict(str(path)).values():
        found[value.numel()].append(value.flatten())
    parameters = dict(backbone.named_parameters())
    left = [
        key
        for key, value in parameters.items()
        if not any(torch.equal(value.flatten(), other) for other in found[value.numel()])
    ]
    if left:
        raise ValueError(
            f"pretrained file {path} does not fit {name}: {len(left)} of {len(parameters)} parameters are not in it, "
            f"{left[0]} first"
        )
