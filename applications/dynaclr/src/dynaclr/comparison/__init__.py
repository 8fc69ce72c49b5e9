"""Train a model with several losses alike, and judge them side by side: what ``dynaclr compare-losses`` does."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynaclr.comparison.compare import compare_losses
    from dynaclr.comparison.synthetic import LabelImagesDataModule

__all__ = ["LabelImagesDataModule", "compare_losses"]

_HOMES = {"LabelImagesDataModule": "synthetic", "compare_losses": "compare"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
