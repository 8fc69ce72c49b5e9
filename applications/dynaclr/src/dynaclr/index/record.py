"""What an index was built from, and whether that is still so."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from dynaclr.experiment import ExperimentRegistry
from dynaclr.index.left_out import LeftOut
from dynaclr.index.sources import TrackSources
from viscy_data.schema import written_by
from viscy_data.stores import canonical_fov_name

__all__ = ["SCHEMA_VERSION", "IndexRecord"]

SCHEMA_VERSION = 1
"""Of the layout of saved indexes."""


@dataclasses.dataclass(frozen=True)
class IndexRecord:
    """What an index was built from.

    Parameters
    ----------
    experiments : list of str
        Names, in order.
    filters : dict
        ``include_wells`` and ``exclude_fovs``.
    tables : dict of (str, str) to list
        (Experiment, FOV) to store, shape, and path, size in bytes and mtime in nanoseconds of the tracking table.
    left_out : LeftOut
    anchors : dict
        ``positive_scope`` and ``tau_frames`` of the stored anchors, set when the index is saved.
    schema_version : int
        Version of this layout.
    written_by : str
        What wrote it; empty for files of the first versions.
    """

    experiments: list[str]
    filters: dict[str, list[str] | None]
    tables: dict[tuple[str, str], list[Any]]
    left_out: LeftOut
    anchors: dict[str, Any] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    written_by: str = dataclasses.field(default_factory=lambda: written_by("dynaclr"))

    @classmethod
    def of(
        cls,
        registry: ExperimentRegistry,
        sources: TrackSources,
        left_out: LeftOut,
        include_wells: Sequence[str] | None,
        exclude_fovs: Sequence[str] | None,
    ) -> Self:
        """Record the state of the input as it is now."""
        names = registry.names
        return cls(
            experiments=names,
            filters={"include_wells": _sorted(include_wells), "exclude_fovs": _sorted(exclude_fovs)},
            tables={
                (names[source.experiment], source.fov.name): [
                    source.fov.store,
                    list(source.fov.shape),
                    str(source.path),
                    *_size_and_time(source.path),
                ]
                for source in sources.found
            },
            left_out=left_out,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for :meth:`from_json`."""
        tables: dict[str, dict[str, list[Any]]] = {name: {} for name in self.experiments}
        for (experiment, fov), state in self.tables.items():
            tables[experiment][fov] = state
        # Not dataclasses.asdict: it copies the state of every table, and JSON has no tuples for keys.
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain | {"tables": tables, "left_out": self.left_out.to_json()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self | None:
        """Return what :meth:`to_json` was made of, None if that was of another layout."""
        content = {"written_by": ""} | content
        if set(content) != {field.name for field in dataclasses.fields(cls)}:
            return None
        tables = {(name, fov): state for name, own in content["tables"].items() for fov, state in own.items()}
        return cls(**content | {"tables": tables, "left_out": LeftOut.from_json(content["left_out"])})

    def subset(self, experiments: Sequence[str]) -> Self:
        """Return the record of some of the experiments."""
        tables = {key: state for key, state in self.tables.items() if key[0] in experiments}
        left_out = self.left_out.subset(experiments)
        return dataclasses.replace(self, experiments=list(experiments), tables=tables, left_out=left_out)

    def differences(self, now: IndexRecord) -> list[str]:
        """Say what has changed between this record and another."""
        if self.experiments != now.experiments:
            return [f"experiments {', '.join(self.experiments)}, now {', '.join(now.experiments)}"]
        changes = [
            f"{name} {self.filters[name]}, now {now.filters[name]}"
            for name in self.filters
            if self.filters[name] != now.filters[name]
        ]
        if changes:
            return changes
        both = [key for key in self.tables if key in now.tables]
        changed = [
            f"{_shown(key)} has changed ({_what(self.tables[key], now.tables[key])})"
            for key in both
            if self.tables[key] != now.tables[key]
        ]
        gone = [f"{_shown(key)} is gone" for key in self.tables if key not in now.tables]
        new = [f"{_shown(key)} is new" for key in now.tables if key not in self.tables]
        return changed + gone + new

    def changed_tables(self) -> list[str]:
        """List the tracking tables that are gone, or of another size or time than recorded."""
        return [
            str(path)
            for _, _, path, *state in self.tables.values()
            if not Path(path).exists() or list(_size_and_time(Path(path))) != state
        ]


def _shown(key: tuple[str, str]) -> str:
    return ": ".join(key)


def _what(before: list[Any], after: list[Any]) -> str:
    names = ("store", "shape", "path of the tracking table", "size of the tracking table", "time of the tracking table")
    return next(name for name, old, new in zip(names, before, after, strict=True) if old != new)


def _sorted(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else sorted(map(canonical_fov_name, names))


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
