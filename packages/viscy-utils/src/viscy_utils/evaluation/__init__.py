"""Evaluation of embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from viscy_utils.evaluation.annotation import load_annotation_anndata

__all__ = ["load_annotation_anndata"]


def __getattr__(name: str) -> Any:
    if name == "load_annotation_anndata":
        from viscy_utils.evaluation.annotation import load_annotation_anndata

        return load_annotation_anndata
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
