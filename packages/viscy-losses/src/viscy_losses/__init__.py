"""Losses for representation learning: pure functions on tensors, and modules made of them; torch and nothing else.

>>> from viscy_losses import LossRegistry, SimCLRLoss
>>> loss = SimCLRLoss(temperature=0.07)
>>> loss(anchor, positive)["loss"].backward()  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Any

_HOMES = {
    "BarlowTwinsLoss": "barlow_twins",
    "BaseLoss": "base",
    "CLIPLoss": "clip",
    "ContrastiveLoss": "contrastive",
    "DCLLoss": "decoupled",
    "DebiasedLoss": "debiased",
    "FocalLoss": "focal",
    "HardNegativeLoss": "hard_negative",
    "LearnedTemperature": "temperature",
    "LossRegistry": "registry",
    "MoCoLoss": "moco",
    "SigLIPLoss": "siglip",
    "SimCLRLoss": "simclr",
    "SupConLoss": "supcon",
    "TripletLoss": "triplet",
    "VICRegLoss": "vicreg",
}

__all__ = [
    "BarlowTwinsLoss",
    "BaseLoss",
    "CLIPLoss",
    "ContrastiveLoss",
    "DCLLoss",
    "DebiasedLoss",
    "FocalLoss",
    "HardNegativeLoss",
    "LearnedTemperature",
    "LossRegistry",
    "MoCoLoss",
    "SigLIPLoss",
    "SimCLRLoss",
    "SupConLoss",
    "TripletLoss",
    "VICRegLoss",
    "functional",
]


def __getattr__(name: str) -> Any:
    if name == "functional":
        return import_module("viscy_losses.functional")
    if name == "__version__":
        return metadata.version("viscy-losses")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
