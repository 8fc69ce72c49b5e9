"""The condition of every FOV, and cells of wells that name none.

An experiment may name conditions for all of its wells, for some, or for none. Wells without one share the condition
"unknown"; whether that is a condition like the others is the user's choice: ``default_condition`` in the experiment, or
"unknown" in ``condition_ratio``. Batches are not balanced over it without being asked.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from dynaclr.experiment import ExperimentRegistry
from dynaclr.index.sources import listed
from dynaclr.index.tracks_table import TracksTable
from viscy_data.errors import InputError
from viscy_data.sampler import BatchPlan
from viscy_data.sampler.groups import UNKNOWN_CONDITION

if TYPE_CHECKING:
    from dynaclr.index import MultiExperimentIndex

__all__ = ["check_balance", "conditions_of_fovs", "report_unnamed", "unnamed_wells"]


def conditions_of_fovs(registry: ExperimentRegistry, table: TracksTable) -> list[str]:
    """Return the condition of each FOV."""
    named = [config.condition_of_well() for config in registry.experiments]
    defaults = [config.default_condition or UNKNOWN_CONDITION for config in registry.experiments]
    return [
        named[number].get(fov.well, defaults[number])
        for number, fov in zip(table.fov_experiment, table.fovs, strict=True)
    ]


def unnamed_wells(registry: ExperimentRegistry, table: TracksTable) -> dict[tuple[str, str], int]:
    """Count the cells of wells for which the experiment names no condition, by (experiment, well)."""
    cells = np.diff(table.fov_starts)
    named = [config.condition_of_well() for config in registry.experiments]
    counts: dict[tuple[str, str], int] = {}
    for fov, number, n_cells in zip(table.fovs, table.fov_experiment, cells, strict=True):
        config = registry.experiments[number]
        if fov.well not in named[number] and not config.default_condition:
            key = (config.name, fov.well)
            counts[key] = counts.get(key, 0) + int(n_cells)
    return counts


def report_unnamed(registry: ExperimentRegistry, table: TracksTable) -> None:
    """Warn of wells without a condition, unless there are no conditions at all."""
    unnamed = unnamed_wells(registry, table)
    if unnamed and any(config.condition_wells for config in registry.experiments):
        warnings.warn(
            f"{len(unnamed)} wells are in no condition of condition_wells and are called {UNKNOWN_CONDITION!r}: "
            f"{listed([': '.join(key) for key in unnamed])} ({sum(unnamed.values())} of {len(table)} cells); "
            "default_condition names them",
            stacklevel=3,
        )


def check_balance(index: MultiExperimentIndex, plan: BatchPlan, source: str) -> None:
    """Refuse to balance conditions over cells of which nobody said that they are one.

    Parameters
    ----------
    index : MultiExperimentIndex
        What is trained on.
    plan : BatchPlan
        Composition of its batches.
    source : str
        The experiments file, for the message.

    Raises
    ------
    InputError
        If conditions are balanced, and some but not all cells belong to wells without a condition, and
        ``condition_ratio`` does not name "unknown".
    """
    unnamed = index.unnamed_wells
    n_cells, total = sum(unnamed.values()), len(index.tracks)
    chosen = not plan.condition_balanced or UNKNOWN_CONDITION in (plan.condition_ratio or {})
    if chosen or not 0 < n_cells < total:
        return
    wells = listed([": ".join(key) for key in unnamed])
    raise InputError(
        source,
        field="condition_wells",
        found=f"{n_cells} of {total} cells ({n_cells / total:.0%}) in wells without a condition: {wells}",
        expected="with condition_balanced, a condition for every well",
        fix="name these wells, set default_condition in the experiment, name 'unknown' in condition_ratio, or leave "
        "the wells out with include_wells",
    )
