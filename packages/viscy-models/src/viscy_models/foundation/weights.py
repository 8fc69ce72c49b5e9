"""What files of pretrained transformers tell of the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

__all__ = ["count_blocks", "require_entries"]


def count_blocks(state: Mapping[str, Tensor]) -> int:
    """Count the blocks of a transformer by the names ``blocks.<number>. ...`` of its weights."""
    numbers = [int(found[1]) for key in state if (found := re.match(r"blocks\.(\d+)\.", key))]
    return max(numbers, default=-1) + 1


def require_entries(state: Mapping[str, Tensor], names: tuple[str, ...], path: Path, what: str) -> None:
    """Refuse a file without the weights by which the network is told."""
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"{path}: found no {missing[0]}, expected the weights of {what}")
