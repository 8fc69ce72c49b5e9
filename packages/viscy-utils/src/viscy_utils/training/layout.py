"""The layout of our checkpoints: each says which one it has and what wrote it; a newer one is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from viscy_data.schema import refuse_newer, written_by

__all__ = ["mark_checkpoint", "refuse_newer_checkpoint"]

_KEY, _SCHEMA = "viscy", 1


def mark_checkpoint(checkpoint: dict[str, Any]) -> None:
    """Say in a checkpoint which layout it has, and what wrote it."""
    checkpoint[_KEY] = {"schema": _SCHEMA, "written_by": written_by("viscy-utils")}


def refuse_newer_checkpoint(checkpoint: Mapping[str, Any], where: str) -> None:
    """Refuse a checkpoint of a later layout; those that do not say, as of VisCy v2.2, are read.

    Raises
    ------
    InputError
        Naming the version that reads it.
    """
    about = checkpoint.get(_KEY)
    if isinstance(about, Mapping):
        refuse_newer(where, about.get("schema"), _SCHEMA, "viscy-utils", about.get("written_by"), field="schema")
