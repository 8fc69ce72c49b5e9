"""The cells of a step with NaN or infinite values, in a file of the run."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from viscy_data.files import replacing
from viscy_utils.training.finite import NonFiniteError, record_of

__all__ = ["write_nonfinite_cells"]

_FIRST = ("step", "role", "row", "experiment", "fov_name", "track_id", "t", "nonfinite_channels")


def write_nonfinite_cells(path: Path, error: NonFiniteError, data: Any) -> int:
    """Write the cells that may be the cause of values that are not finite.

    Parameters
    ----------
    path : Path
        CSV file, a row per image: ``step``, ``role``, ``row`` in the batch, ``experiment``, ``fov_name``, ``track_id``,
        ``t``, ``nonfinite_channels`` (names, or numbers where there are none, between semicolons), and what else is
        known of the cell. These are the images with such pixels; where there are none, all of the rows at fault.
    error : NonFiniteError
    data : LightningDataModule or None
        Its ``cells_of_batch`` knows the cells of a step, where it has that; otherwise the batch names them.

    Returns
    -------
    int
        Number of rows.
    """
    find = getattr(data, "cells_of_batch", None)
    known = find(error.step.stage, error.step.batch_idx) if find is not None else []
    images = {(cell["role"], cell["row"]): cell for cell in known}
    images |= {key: {} for key in _images_of(error) if key not in images}
    table = []
    for (role, row), cell in images.items():
        names = cell.pop("channels", None)
        damaged = ";".join(_damaged_names(error, role, row, names))
        known_of_row = record_of(error.cells, row) | cell
        table.append({**known_of_row, "step": error.step, "role": role, "row": row, "nonfinite_channels": damaged})
    at_fault = [cell for cell in table if cell["nonfinite_channels"]]
    at_fault = at_fault or [cell for cell in table if cell["row"] in error.rows] or table
    _write(path, at_fault)
    return len(at_fault)


def _images_of(error: NonFiniteError) -> list[tuple[str, int]]:
    """List role and row of the images that the error itself knows."""
    looked_at = [(role, row) for role, damaged in error.damaged.items() for row in range(len(damaged))]
    return looked_at or [("", row) for row in error.rows]


def _damaged_names(error: NonFiniteError, role: str, row: int, names: Any) -> Iterable[str]:
    damaged = error.damaged.get(role)
    if damaged is None or row >= len(damaged):
        return
    for number, is_damaged in enumerate(damaged[row].tolist()):
        if is_damaged:
            yield str(names[number] if names and number < len(names) and names[number] else number)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = dict.fromkeys([*_FIRST, *(name for row in rows for name in row)])
    with replacing(path, overwrite=True) as temporary, open(temporary, "w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, [name for name in columns if any(name in row for row in rows)])
        writer.writeheader()
        writer.writerows(rows)
