"""Means of many figures over the batches of an epoch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RunningMeans"]


class RunningMeans:
    """Average figures by name, where they were computed: one operation per batch, and no wait for the device.

    Lightning keeps a metric of its own for each name that is logged in a step, which costs a small model more than its
    training does.
    """

    def __init__(self) -> None:
        self._clear()

    def add(self, figures: dict[str, Tensor], weight: float = 1.0) -> None:
        """Add the figures of a batch, scalars that have the same names every time."""
        values = weight * torch.stack([value.detach().float() for value in figures.values()])
        if self._total is not None and self._names != tuple(figures):
            raise ValueError(f"found the figures {list(figures)}, expected {list(self._names)} as before")
        self._names, self._weight = tuple(figures), self._weight + weight
        self._total = values if self._total is None else self._total + values

    def take(self) -> dict[str, Tensor]:
        """Return the means since the last call, and begin anew."""
        found = {} if self._total is None else dict(zip(self._names, self._total / self._weight, strict=True))
        self._clear()
        return found

    def _clear(self) -> None:
        self._names: tuple[str, ...] = ()
        self._total: Tensor | None = None
        self._weight = 0.0
