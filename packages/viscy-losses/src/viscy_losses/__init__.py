"""Losses for representation learning: pure functions on tensors, torch and nothing else.

>>> from viscy_losses import functional as F
>>> loss = F.nt_xent(anchor, positive, temperature=0.07)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Any

__all__ = ["functional"]


def __getattr__(name: str) -> Any:
    if name == "functional":
        return import_module("viscy_losses.functional")
    if name == "__version__":
        return metadata.version("viscy-losses")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
