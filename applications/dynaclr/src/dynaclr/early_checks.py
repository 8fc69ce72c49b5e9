"""Experiments and patch stores that are not there are refused before torch is imported, in the words of the run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dynaclr.experiment.file import read_experiments
from viscy_data.patch_store import read_record

__all__ = ["refuse_missing_experiments"]


def refuse_missing_experiments(arguments: Mapping[str, Any]) -> None:
    """Refuse an experiments YAML that cannot be read, and stores, folders of tracks or a patch store that do not exist.

    Parameters
    ----------
    arguments : mapping
        Of :class:`~dynaclr.datamodule.MultiExperimentDataModule`, as written; values of a wrong type are left to the
        parser.

    Raises
    ------
    InputError
    """
    if isinstance(store := arguments.get("patch_store"), str):
        read_record(store)
    path = arguments.get("experiments_yaml")
    if not isinstance(path, str):
        return
    experiments, errors = read_experiments(path)
    stores = [store for each in experiments for store in _listed(each.data_path)]
    folders = [] if arguments.get("index_path") else [each.tracks_path for each in experiments]
    if not errors and all(map(_is_there, [*stores, *folders])):
        return
    from dynaclr.experiment import ExperimentRegistry
    from dynaclr.index.sources import find_sources

    registry = ExperimentRegistry.from_yaml(path, arguments.get("training_channels"))
    find_sources(registry, arguments.get("include_wells"), arguments.get("exclude_fovs"))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_there(path: Any) -> bool:
    """Tell whether a path exists; URLs and patterns are looked at by what reads them."""
    return not isinstance(path, str) or "://" in path or "*" in path or os.path.exists(path)
