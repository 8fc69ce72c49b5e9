"""The networks that translate images, by the names that configurations give them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import nn

from viscy_data.checks import near_matches
from viscy_data.errors import InputError
from viscy_models import FullyConvolutionalMAE, Unet2d, Unet25d, UNeXt2

__all__ = ["Architecture", "encoder_parts", "make_network", "network_settings"]

Architecture = Literal["2D", "UNeXt2", "2.5D", "FNet3D", "fcmae", "UNeXt2_2D"]

_CLASSES: dict[str, type[nn.Module]] = {
    "2D": Unet2d,
    "UNeXt2": UNeXt2,
    "2.5D": Unet25d,
    "fcmae": FullyConvolutionalMAE,
    "UNeXt2_2D": FullyConvolutionalMAE,
}
_ENCODERS = {"UNeXt2": ("stem", "encoder_stages"), "fcmae": ("encoder",), "UNeXt2_2D": ("encoder",)}


def network_settings(architecture: str, model_config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return all arguments of a network, defaults included; of 2D networks also a depth of 1.

    Raises
    ------
    InputError
        For an unknown architecture or argument.
    """
    if architecture not in _CLASSES:
        known = "FNet3D is not part of viscy-models" if architecture in get_args(Architecture) else ""
        near = near_matches(architecture, _CLASSES)
        raise InputError("model", field="architecture", found=repr(architecture), expected=near, fix=known)
    parameters = inspect.signature(_CLASSES[architecture]).parameters
    unknown = [name for name in model_config or {} if name not in parameters]
    if unknown:
        near = near_matches(unknown[0], parameters)
        raise InputError("model", field="model_config", found=f"{unknown[0]}, which {architecture} has not", fix=near)
    defaults = {
        name: value.default for name, value in parameters.items() if value.default is not inspect.Parameter.empty
    }
    settings = defaults | dict(model_config or {})
    missing = [name for name in parameters if name not in settings]
    if missing:
        raise InputError("model", field="model_config", found=f"no {', '.join(missing)}", expected="values for them")
    return settings


def make_network(architecture: str, model_config: Mapping[str, Any] | None) -> nn.Module:
    """Build a network.

    Raises
    ------
    InputError
        For an unknown architecture or argument.
    ValueError
        For arguments that the network refuses.
    """
    network_settings(architecture, model_config)
    return _CLASSES[architecture](**dict(model_config or {}))


def encoder_parts(architecture: str, network: nn.Module) -> list[nn.Module]:
    """Return what of a network encodes.

    Raises
    ------
    InputError
        If it has no encoder of its own.
    """
    if architecture not in _ENCODERS:
        expected = f"false, or an architecture with an encoder: {', '.join(_ENCODERS)}"
        raise InputError("model", field="freeze_encoder", found=f"true for {architecture}", expected=expected)
    return [network.get_submodule(name) for name in _ENCODERS[architecture]]
