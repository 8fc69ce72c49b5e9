"""Noticing values that are not finite without waiting for the device at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["FiniteWatch", "NonFiniteError", "Step", "name_cells", "record_of"]

_SHOWN = 5
_NAMES = ("experiment", "fov_name", "track_id", "t", "lineage")
_WINDOW = ("fov_name", "t", "z")  # of batches of windows
_IMAGES = ("anchor", "positive", "negative", "source", "target")


class Step(NamedTuple):
    """A step of a training.

    >>> str(Step("train", 2, 7))
    'train epoch 2 batch 7'
    """

    stage: Literal["train", "val"]
    epoch: int
    batch_idx: int

    def __str__(self) -> str:
        return f"{self.stage} epoch {self.epoch} batch {self.batch_idx}"


class NonFiniteError(ValueError):
    """NaN or infinite values in a step.

    Parameters
    ----------
    message : str
    step : Step
    rows : list of int
        Of the batch; empty for a loss, to which all of them have contributed.
    damaged : mapping of str to Tensor, optional
        Per role of images, bool (B, C): which channels of which row hold such pixels.
    cells : mapping, optional
        What the batch says of its cells, as :func:`name_cells` takes it.
    """

    def __init__(
        self,
        message: str,
        step: Step,
        rows: list[int],
        damaged: Mapping[str, Tensor] | None = None,
        cells: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.step, self.rows, self.damaged, self.cells = step, rows, dict(damaged or {}), dict(cells or {})


class _Entry(NamedTuple):
    step: Step
    what: str
    finite: Tensor
    damaged: Mapping[str, Tensor]
    cells: Mapping[str, Any]


class FiniteWatch:
    """Keep, where they are computed, which rows of each step are finite, and look at them now and then.

    To look is to wait until the device has come so far. On the CPU that costs nothing, and every entry is looked at
    once; elsewhere `settle` is called every so many entries, and by whoever is about to write a checkpoint.

    Parameters
    ----------
    every : int, default 50
        Entries after which to look.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = every
        self._entries: list[_Entry] = []

    def add(self, values: Tensor, what: str, step: Step, batch: Mapping[str, Any] | None = None) -> None:
        """Remember which rows of values are finite.

        Parameters
        ----------
        values : Tensor, shape (B, ...), or () for the whole batch
        what : str
            What the values are called in a message.
        step : Step
        batch : mapping, optional
            That the rows are of; ``index`` and ``lineage`` name its cells. Away from the CPU its images are looked
            through in any case, as they are gone when the values are looked at.

        Raises
        ------
        NonFiniteError
            When it is time to look, for the earliest rows that are not finite.
        """
        finite = torch.isfinite(values.detach())
        finite = finite.flatten(1).all(dim=1) if finite.ndim > 1 else finite
        on_cpu = values.device.type == "cpu"
        if on_cpu and bool(finite.all()):
            return
        known = batch if isinstance(batch, Mapping) else {}
        names = {key: known[key] for key in ("index", "lineage") if key in known}
        self._entries.append(_Entry(step, what, finite, _damaged_channels(known), names))
        if on_cpu or len(self._entries) >= self.every:
            self.settle()

    def settle(self) -> None:
        """Look at all that was added since the last time, waiting for the device once.

        Raises
        ------
        NonFiniteError
            For the earliest rows that are not finite, naming their cells where the batch knows them.
        """
        entries, self._entries = self._entries, []
        if not entries:
            return
        for entry, fine in zip(entries, torch.stack([entry.finite.all() for entry in entries]).tolist(), strict=True):
            if not fine:
                rows = torch.nonzero(~entry.finite).flatten().tolist() if entry.finite.ndim else []
                raise NonFiniteError(_report(entry, rows), entry.step, rows, entry.damaged, entry.cells)


def _damaged_channels(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Find the images of a batch, (B, C, ...), and which of their channels hold values that are not finite."""
    images = {role: batch[role] for role in _IMAGES if isinstance(batch.get(role), Tensor) and batch[role].ndim > 2}
    return {role: ~torch.isfinite(image.detach()).flatten(2).all(dim=2) for role, image in images.items()}


def _report(entry: _Entry, rows: Sequence[int]) -> str:
    if not entry.finite.ndim:
        return f"{entry.step}: {entry.what} NaN or infinite; look for a learning rate that is too high"
    cells = name_cells(entry.cells, rows[:_SHOWN])
    shown = "; ".join(cells) + ("; ..." if len(rows) > _SHOWN else "")
    cause = "such pixels in these samples" if len(rows) < len(entry.finite) else "weights that have diverged"
    return (
        f"{entry.step}: {entry.what} of {len(rows)} of {len(entry.finite)} cells hold NaN or infinite values "
        f"({shown}); look for {cause}"
    )


def name_cells(batch: Mapping[str, Any], rows: Sequence[int]) -> list[str]:
    """Say where the cells of some rows of a batch come from.

    Parameters
    ----------
    batch : mapping
        ``index``, a record per cell or a column per name, and ``lineage``, where it has them.
    rows : sequence of int

    Returns
    -------
    list of str
        Such as ``row 3: fov_name A/1/0, track_id 7, t 12``; of lineages where there is no index.
    """
    named = []
    for row in rows:
        record = record_of(batch, row)
        fields = [f"{key} {record[key]}" for key in _NAMES if key in record]
        named.append(f"row {row}" + (f": {', '.join(fields)}" if fields else ""))
    return named


def record_of(batch: Mapping[str, Any], row: int) -> dict[str, Any]:
    """Return what a batch says of one of its rows.

    >>> record_of({"index": {"t": torch.tensor([3, 4])}, "lineage": torch.tensor([7, 8])}, 1)
    {'t': 4}
    >>> record_of({"lineage": torch.tensor([7, 8])}, 1)
    {'lineage': 8}
    """
    index, lineage = batch.get("index"), batch.get("lineage")
    record: Mapping[str, Any] = {}
    if isinstance(index, Mapping):
        record = {key: values[row] for key, values in index.items() if len(values) > row}
    elif isinstance(index, Sequence) and row < len(index) and isinstance(index[row], Mapping):
        record = index[row]
    elif isinstance(index, Sequence) and len(index) == len(_WINDOW):  # columns
        record = {key: values[row] for key, values in zip(_WINDOW, index, strict=True) if len(values) > row}
    elif lineage is not None:
        record = {"lineage": lineage[row]}
    return {key: value.item() if isinstance(value, Tensor) else value for key, value in record.items()}
