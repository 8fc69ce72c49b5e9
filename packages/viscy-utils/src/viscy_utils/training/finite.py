"""Noticing values that are not finite without waiting for the device at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["FiniteWatch", "name_cells"]

_SHOWN = 5


class _Entry(NamedTuple):
    step: str
    what: str
    finite: Tensor
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

    def add(self, values: Tensor, what: str, step: str, batch: Mapping[str, Any] | None = None) -> None:
        """Remember which rows of values are finite.

        Parameters
        ----------
        values : Tensor, shape (B, ...), or () for the whole batch
        what, step : str
            What the values and the step are called in a message.
        batch : mapping, optional
            That the rows are of; ``index`` and ``lineage`` name its cells.

        Raises
        ------
        ValueError
            When it is time to look, for the earliest rows that are not finite.
        """
        finite = torch.isfinite(values.detach())
        finite = finite.flatten(1).all(dim=1) if finite.ndim > 1 else finite.reshape(-1)
        names = {key: batch[key] for key in ("index", "lineage") if batch is not None and key in batch}
        self._entries.append(_Entry(step, what, finite, names))
        if values.device.type == "cpu" or len(self._entries) >= self.every:
            self.settle()

    def settle(self) -> None:
        """Look at all that was added since the last time, waiting for the device once.

        Raises
        ------
        ValueError
            For the earliest rows that are not finite, naming their cells where the batch knows them.
        """
        entries, self._entries = self._entries, []
        if not entries:
            return
        for entry, fine in zip(entries, torch.stack([entry.finite.all() for entry in entries]).tolist(), strict=True):
            if not fine:
                raise ValueError(_report(entry))


def _report(entry: _Entry) -> str:
    rows = torch.nonzero(~entry.finite).flatten().tolist()
    cells = name_cells(entry.cells, rows[:_SHOWN])
    shown = "; ".join(cells) + ("; ..." if len(rows) > _SHOWN else "")
    if not entry.cells:
        return f"{entry.step}: {entry.what} NaN or infinite; look for a learning rate that is too high"
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
    index, lineage = batch.get("index"), batch.get("lineage")
    named = []
    for row in rows:
        record = {}
        if isinstance(index, Mapping):
            record = {key: values[row] for key, values in index.items() if len(values) > row}
        elif isinstance(index, Sequence):
            record = index[row]
        elif lineage is not None:
            record = {"lineage": lineage[row]}
        known = [key for key in ("experiment", "fov_name", "track_id", "t", "lineage") if key in record]
        fields = [f"{key} {record[key].item() if isinstance(record[key], Tensor) else record[key]}" for key in known]
        named.append(f"row {row}" + (f": {', '.join(fields)}" if fields else ""))
    return named
