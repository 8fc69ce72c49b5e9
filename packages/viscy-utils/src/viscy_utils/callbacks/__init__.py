"""Callbacks for training and prediction."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from viscy_utils.callbacks.checkpoint_visualization import CheckpointVisualization
    from viscy_utils.callbacks.embedding_writer import EmbeddingWriter

__all__ = ["CheckpointVisualization", "EmbeddingWriter"]

_MODULES = {"CheckpointVisualization": "checkpoint_visualization", "EmbeddingWriter": "embedding_writer"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"viscy_utils.callbacks.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
