"""Variational autoencoders: an image in, its distribution in a latent space and its reconstruction out."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["BetaVae25D", "BetaVaeMonai"]

_HOMES = {
    "BetaVae25D": "viscy_models.vae.beta_vae_25d",
    "BetaVaeMonai": "viscy_models.vae.beta_vae_monai",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
