"""Networks that turn an image into an image."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["FullyConvolutionalMAE", "UNeXt2", "Unet2d", "Unet25d"]

_HOMES = {
    "FullyConvolutionalMAE": "viscy_models.unet.fcmae",
    "UNeXt2": "viscy_models.unet.unext2",
    "Unet2d": "viscy_models.unet.unet2d",
    "Unet25d": "viscy_models.unet.unet25d",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
