"""What files of pretrained transformers tell of the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

__all__ = ["count_blocks", "require_entries"]

_OF_BLOCK = 12  # times the square of its width, in parameters: 4 of the attention, 8 of the perceptron


def count_blocks(state: Mapping[str, Tensor], width: int, path: Path) -> int:
    """Count the blocks of a transformer by the names ``blocks.<number>. ...`` of its weights.

    Raises
    ------
    ValueError
        If the file holds much less than blocks of this width have: no network is made of what is not there.
    """
    numbers = [int(found[1]) for key in state if (found := re.match(r"blocks\.(\d+)\.", key))]
    depth = max(numbers, default=-1) + 1
    held, expected = sum(value.numel() for value in state.values()), depth * _OF_BLOCK * width**2
    if held < expected // 2:
        raise ValueError(f"{path}: found {held:,} numbers, expected {expected:,}: {depth} blocks of width {width}")
    return depth


def require_entries(state: Mapping[str, Tensor], axes: Mapping[str, int], path: Path, what: str) -> None:
    """Refuse a file without the weights by which the network is told; ``axes`` is how many each of them has."""
    for name, n in axes.items():
        if name not in state:
            raise ValueError(f"{path}: found no {name}, expected the weights of {what}")
        if state[name].ndim != n or not state[name].numel():
            raise ValueError(f"{path}: found {name} of shape {tuple(state[name].shape)}, expected {n} axes")
