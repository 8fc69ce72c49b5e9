"""Lightning modules of the application, loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynaclr.engine.contrastive import ContrastiveModule, ContrastivePrediction
    from dynaclr.engine.vae import BetaVaeModule

__all__ = ["BetaVaeModule", "ContrastiveModule", "ContrastivePrediction"]

_HOMES = {"BetaVaeModule": "vae", "ContrastiveModule": "contrastive", "ContrastivePrediction": "contrastive"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
