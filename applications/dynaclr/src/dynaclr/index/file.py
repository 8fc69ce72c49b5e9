"""An index on disk: one parquet file that knows what it was built from.

What depends on the YAML file alone (conditions, hours, patches) is derived again when the index is loaded, so only
changes of tracking tables, FOVs or filters make a file stale.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dynaclr.experiment import ExperimentRegistry
from dynaclr.index.tracks_reading import TrackSources
from dynaclr.index.tracks_table import LeftOut, TracksTable
from viscy_data.errors import InputError, MissingInputError
from viscy_data.files import replacing
from viscy_data.stores import canonical_fov_name

__all__ = ["SCHEMA_VERSION", "IndexRecord", "read_index_file", "write_index_file"]

SCHEMA_VERSION = 1
_RECORD, _TRACKS = b"dynaclr.record", b"dynaclr.tracks"
_TRACK, _ANCHOR = "__track_index", "__is_anchor"
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class IndexRecord:
    """What an index was built from.

    Parameters
    ----------
    experiments : list of str
        Names, in order.
    filters : dict
        ``include_wells`` and ``exclude_fovs``.
    fovs : dict of str to list
        ``experiment: FOV`` to store, shape, and path, size in bytes and mtime in nanoseconds of the tracking table.
    left_out : dict
        As in :class:`~dynaclr.index.tracks_table.LeftOut`.
    anchors : dict
        ``positive_scope`` and ``tau_frames`` of the stored anchors, set when the index is saved.
    schema_version : int
        Version of this layout.
    """

    experiments: list[str]
    filters: dict[str, list[str] | None]
    fovs: dict[str, list[Any]]
    left_out: dict[str, Any]
    anchors: dict[str, Any] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

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
        names = [config.name for config in registry.experiments]
        return cls(
            experiments=names,
            filters={"include_wells": _sorted(include_wells), "exclude_fovs": _sorted(exclude_fovs)},
            fovs={
                f"{names[source.experiment]}: {source.fov.name}": [
                    source.fov.store,
                    list(source.fov.shape),
                    str(source.path),
                    *_size_and_time(source.path),
                ]
                for source in sources.found
            },
            left_out=dataclasses.asdict(left_out),
        )

    def subset(self, experiments: Sequence[str]) -> Self:
        """Return the record of some of the experiments."""
        fovs = {name: state for name, state in self.fovs.items() if _experiment_of(name) in experiments}
        return dataclasses.replace(self, experiments=list(experiments), fovs=fovs)

    def differences(self, now: IndexRecord) -> list[str]:
        """Say what has changed between this record and another."""
        if self.schema_version != now.schema_version:
            return [f"layout {self.schema_version} of the file, this version writes {now.schema_version}"]
        if self.experiments != now.experiments:
            return [f"experiments {', '.join(self.experiments)}, now {', '.join(now.experiments)}"]
        changes = [
            f"{name} {self.filters[name]}, now {now.filters[name]}"
            for name in self.filters
            if self.filters[name] != now.filters[name]
        ]
        gone = [f"{name} is gone" for name in self.fovs if name not in now.fovs]
        new = [f"{name} is new" for name in now.fovs if name not in self.fovs]
        changed = [
            f"{name} has changed ({_what(self.fovs[name], now.fovs[name])})"
            for name in self.fovs
            if name in now.fovs and self.fovs[name] != now.fovs[name]
        ]
        return changes + (changed + gone + new if not changes else [])


def write_index_file(
    path: str | Path, table: TracksTable, is_anchor: np.ndarray, record: IndexRecord, overwrite: bool = False
) -> None:
    """Write a table of tracks beside its place and rename it.

    Raises
    ------
    FileExistsError
        If there is a file and ``overwrite`` is False.
    """
    columns = {name: pa.array(table.columns[name]) for name in table.columns}
    columns |= {_TRACK: pa.array(table.track_index), _ANCHOR: pa.array(is_anchor)}
    metadata = {_RECORD: json.dumps(dataclasses.asdict(record)).encode(), _TRACKS: _pack_tracks(table)}
    with replacing(path, overwrite, remedy="pass overwrite to replace it") as temporary:
        pq.write_table(pa.table(columns, metadata=metadata), temporary, compression="zstd")


def read_index_file(
    path: str | Path, registry: ExperimentRegistry, now: IndexRecord
) -> tuple[TracksTable, np.ndarray, IndexRecord]:
    """Read a table of tracks, unless what it was built from has changed.

    Parameters
    ----------
    path : str or Path
        File of :func:`write_index_file`.
    registry : ExperimentRegistry
        Experiments as they are now.
    now : IndexRecord
        State of the input as it is now.

    Returns
    -------
    table : TracksTable
    is_anchor : ndarray of bool, shape (N,)
    record : IndexRecord
        As written.

    Raises
    ------
    MissingInputError
        If there is no file.
    InputError
        If it is no index, or stale; the message says what has changed.
    """
    path = Path(path)
    fix = "rebuild it: dynaclr build-index --overwrite"
    if not path.exists():
        raise MissingInputError(str(path), found="nothing", expected="a saved index", fix="dynaclr build-index")
    try:
        file = pq.ParquetFile(path, memory_map=True)
    except pa.ArrowInvalid as err:
        raise InputError(str(path), found="no parquet file", expected="a saved index", fix=fix) from err
    with file:
        metadata = file.schema_arrow.metadata or {}
        if _RECORD not in metadata:
            raise InputError(str(path), found="a parquet file of something else", expected="a saved index", fix=fix)
        content = json.loads(metadata[_RECORD])
        known = {field.name for field in dataclasses.fields(IndexRecord)}
        record = IndexRecord(**content) if set(content) == known else None
        changes = record.differences(now) if record else [f"layout {content.get('schema_version')} of the file"]
        if changes:
            more = f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
            raise InputError(
                str(path),
                found=f"an index built from other input: {'; '.join(changes[:_SHOWN])}{more}",
                expected="the input that the index was built from",
                fix=fix,
            )
        content = file.read()
    columns = {name: _to_pandas(content[name]) for name in content.column_names}
    track_index, is_anchor = columns.pop(_TRACK), columns.pop(_ANCHOR)
    return _unpack_table(registry, record, metadata[_TRACKS], columns, track_index), is_anchor, record


def _pack_tracks(table: TracksTable) -> bytes:
    tracks = pa.table({"track_id": table.track_id, "track_fov": table.track_fov, "parent": table.parent})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, tracks.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(tracks)
    return sink.getvalue()


def _unpack_table(
    registry: ExperimentRegistry, record: IndexRecord, packed: bytes, columns: dict[str, Any], track_index: np.ndarray
) -> TracksTable:
    tracks = pa.ipc.open_stream(packed).read_all()
    infos = {f"{name}: {fov.name}": fov for name, fovs in registry.fovs.items() for fov in fovs}
    number = {name: position for position, name in enumerate(record.experiments)}
    return TracksTable(
        experiments=tuple(record.experiments),
        fovs=tuple(infos[name] for name in record.fovs),
        fov_experiment=np.array([number[_experiment_of(name)] for name in record.fovs], dtype=np.int32),
        **{name: tracks[name].to_numpy() for name in tracks.column_names},
        track_index=track_index,
        columns=pd.DataFrame(columns, copy=False),
        left_out=LeftOut(**record.left_out | {"fovs": tuple(record.left_out["fovs"])}),
    )


def _to_pandas(column: pa.ChunkedArray) -> np.ndarray | pd.Categorical:
    if pa.types.is_dictionary(column.type):
        return column.to_pandas().array
    return column.to_numpy()


def _experiment_of(name: str) -> str:
    """Experiment in ``experiment: FOV``; an experiment may hold a colon, a FOV never does."""
    return name.rpartition(": ")[0]


def _what(before: list[Any], after: list[Any]) -> str:
    names = ("store", "shape", "path of the tracking table", "size of the tracking table", "time of the tracking table")
    return next(name for name, old, new in zip(names, before, after, strict=True) if old != new)


def _sorted(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else sorted(map(canonical_fov_name, names))


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
