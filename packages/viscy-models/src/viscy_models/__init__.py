"""Neural network architectures for microscopy, as plain torch modules.

>>> from viscy_models import ContrastiveEncoder
>>> encoder = ContrastiveEncoder("convnext_atto", in_channels=1, in_stack_depth=5, embedding_dim=64)
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Any

__all__ = [
    "BetaVae25D",
    "BetaVaeMonai",
    "ContrastiveEncoder",
    "FullyConvolutionalMAE",
    "ResNet3dEncoder",
    "UNeXt2",
    "Unet2d",
    "Unet25d",
    "load_weights",
]

_HOMES = {
    "BetaVae25D": "viscy_models.vae",
    "BetaVaeMonai": "viscy_models.vae",
    "ContrastiveEncoder": "viscy_models.contrastive",
    "FullyConvolutionalMAE": "viscy_models.unet",
    "ResNet3dEncoder": "viscy_models.contrastive",
    "UNeXt2": "viscy_models.unet",
    "Unet2d": "viscy_models.unet",
    "Unet25d": "viscy_models.unet",
    "load_weights": "viscy_models.checkpoints",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        return metadata.version("viscy-models")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
