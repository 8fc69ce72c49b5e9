"""A thing on disk in words: what it is, facts, a table, and what to do with it next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from viscy_data.errors import MissingInputError
from viscy_data.stores import read_attributes
from viscy_utils.reports.tables import ReportTable

__all__ = ["Describer", "Description", "group_attributes"]


@dataclass(frozen=True)
class Description:
    """What is known of a file, folder or store.

    Parameters
    ----------
    kind : str
        What it is.
    facts : mapping of str to object
        Names to values: texts, numbers, sequences of them.
    tables : tuple of ReportTable
        What is there several times, a row each.
    next_steps : tuple of str
        Commands to go on with.
    """

    kind: str
    facts: Mapping[str, Any]
    tables: tuple[ReportTable, ...] = field(default=())
    next_steps: tuple[str, ...] = ()


class Describer(NamedTuple):
    """A kind of thing: what it is called, how it is recognised (cheaply), and how it is described."""

    name: str
    recognises: Callable[[Path], bool]
    describe: Callable[[Path], Description]


def group_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of the Zarr group at a path; none where there is no such group."""
    try:
        return read_attributes(path) if path.is_dir() else {}
    except MissingInputError:
        return {}
