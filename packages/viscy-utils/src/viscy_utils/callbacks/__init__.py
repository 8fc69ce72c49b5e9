"""Callbacks for training and prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from viscy_utils.callbacks.embedding_writer import EmbeddingWriter

__all__ = ["EmbeddingWriter"]


def __getattr__(name: str) -> Any:
    if name == "EmbeddingWriter":
        from viscy_utils.callbacks.embedding_writer import EmbeddingWriter

        return EmbeddingWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
