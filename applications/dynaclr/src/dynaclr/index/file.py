"""An index on disk: one file that knows what it was built from, in parquet (small) or Arrow (mapped into memory).

What depends on the YAML file alone (conditions, hours, patches) is derived again when the index is loaded, so only
changes of tracking tables, FOVs or filters make a file stale.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dynaclr.experiment import ExperimentRegistry
from dynaclr.index.mapped import (
    columns_of,
    frame_arrays,
    frame_of_arrays,
    map_arrays,
    read_mapped_metadata,
    write_arrays,
)
from dynaclr.index.record import SCHEMA_VERSION, IndexRecord
from dynaclr.index.tracks_table import TracksTable
from dynaclr.lineage import LineageForest
from viscy_data.errors import InputError, MissingInputError
from viscy_data.files import replacing
from viscy_data.lookup import SortedRows
from viscy_data.memory import refuse_too_large
from viscy_data.schema import refuse_newer

if TYPE_CHECKING:
    import pandas as pd

    from dynaclr.index.multi_experiment import MultiExperimentIndex

__all__ = [
    "MAPPED_SUFFIX",
    "MappedIndex",
    "StoredIndex",
    "check_index_file",
    "has_index_record",
    "is_mapped",
    "mapped_identity",
    "open_mapped_index",
    "read_index_file",
    "read_index_record",
    "write_index_file",
    "write_mapped_index",
]

_RECORD, _TRACKS, _SHA256 = b"dynaclr.record", b"dynaclr.tracks", b"dynaclr.sha256"
_TRACK, _ANCHOR = "__track_index", "__is_anchor"
MAPPED_SUFFIX = ".arrow"
_GIVEN, _DERIVED = b"dynaclr.given", b"dynaclr.derived"
_COLUMNS, _DERIVATION = b"dynaclr.columns", b"dynaclr.derivation"
_SHOWN = 5
_REBUILD = "rebuild it: dynaclr build-index --overwrite"


@dataclasses.dataclass(frozen=True)
class StoredIndex:
    """What a file says of the index in it, read without the cells.

    Parameters
    ----------
    record : IndexRecord or None
        None for another layout.
    n_cells, n_anchors : int
    columns : list of str
        Of the table of cells.
    """

    record: IndexRecord | None
    n_cells: int
    n_anchors: int
    columns: list[str]


def has_index_record(path: Path) -> bool:
    """Tell whether a file is a saved index."""
    try:
        return path.is_file() and _RECORD in _metadata(path)
    except (pa.ArrowException, OSError, ValueError):
        return False


def read_index_record(path: Path) -> StoredIndex:
    """Read what a file of :func:`write_index_file` or :func:`write_mapped_index` says of itself.

    Raises
    ------
    InputError
        If it is damaged.
    """
    with _undamaged(path):
        if is_mapped(path):
            arrays, metadata = map_arrays(path)
            record = IndexRecord.from_json(json.loads(metadata[_RECORD]))
            return StoredIndex(record, len(arrays[_TRACK]), len(arrays[_ANCHOR]), list(json.loads(metadata[_GIVEN])))
        schema = pq.read_schema(path)
        _refuse_too_many(path, pq.read_metadata(path).num_rows, schema)
        is_anchor = pq.read_table(path, columns=[_ANCHOR], page_checksum_verification=True)[_ANCHOR].to_numpy()
        record = IndexRecord.from_json(json.loads(schema.metadata[_RECORD]))
        if record and record.schema_version == SCHEMA_VERSION:
            _check_schema(schema)
    columns = [name for name in schema.names if name not in (_TRACK, _ANCHOR)]
    return StoredIndex(record, len(is_anchor), int(is_anchor.sum()), columns)


def write_index_file(
    path: str | Path, table: TracksTable, is_anchor: np.ndarray, record: IndexRecord, overwrite: bool = False
) -> None:
    """Write a table of tracks beside its place and rename it.

    Raises
    ------
    FileExistsError
        If there is a file and ``overwrite`` is False.
    """
    if clash := [name for name in (_TRACK, _ANCHOR) if name in table.columns]:
        found, fix = "a column of the tracking tables that the file needs itself", "rename it"
        raise InputError(str(path), field=clash[0], found=found, fix=fix)
    columns = {name: pa.array(table.columns[name]) for name in table.columns}
    columns |= {_TRACK: pa.array(table.track_index), _ANCHOR: pa.array(is_anchor)}
    metadata = {_RECORD: json.dumps(record.to_json()).encode(), _TRACKS: _pack_tracks(table)}
    content = pa.table(columns, metadata=metadata)
    content = content.replace_schema_metadata(metadata | {_SHA256: _digest(content.schema)})
    with replacing(path, overwrite, remedy="pass overwrite to replace it") as temporary:
        pq.write_table(content, temporary, compression="zstd", write_page_checksum=True)


def read_index_file(path: str | Path, registry: ExperimentRegistry) -> tuple[TracksTable, np.ndarray, IndexRecord]:
    """Read a table of tracks.

    Parameters
    ----------
    path : str or Path
        File of :func:`write_index_file` or :func:`write_mapped_index` that :func:`check_index_file` has not refused.
    registry : ExperimentRegistry
        Experiments as they are now.

    Returns
    -------
    table : TracksTable
    is_anchor : ndarray of bool, shape (N,)
    record : IndexRecord
        As written.

    Raises
    ------
    InputError
        If it is damaged: parquet has check sums of its pages, and we add one of the record; what is mapped into memory
        has one of parts, see :func:`~dynaclr.index.mapped.map_arrays`.
    """
    with _undamaged(path):
        metadata = _metadata(Path(path))
        record = IndexRecord.from_json(json.loads(metadata[_RECORD]))
        if is_mapped(path):
            arrays, _ = map_arrays(path)
            is_anchor = np.zeros(len(arrays[_TRACK]), bool)
            is_anchor[arrays[_ANCHOR]] = True
            return mapped_table(registry, record, arrays, metadata), is_anchor, record
        with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            _check_schema(file.schema_arrow)
            _refuse_too_many(path, file.metadata.num_rows, file.schema_arrow)
            content = file.read()
        columns = {name: _to_pandas(content[name]) for name in content.column_names}
        track_index, is_anchor = columns.pop(_TRACK), columns.pop(_ANCHOR)
        return _unpack_table(registry, record, metadata[_TRACKS], columns, track_index), is_anchor, record


def is_mapped(path: str | Path) -> bool:
    """Tell by its name whether an index is, or is to be, a file that is mapped into memory."""
    return Path(path).suffix.lower() == MAPPED_SUFFIX


def write_mapped_index(
    path: str | Path,
    index: MultiExperimentIndex,
    table: TracksTable,
    record: IndexRecord,
    derivation: str,
    overwrite: bool = False,
) -> None:
    """Write an index with all that is derived of it, as it lies in memory.

    Parameters
    ----------
    path : str or Path
    index : MultiExperimentIndex
        Of all its observations: none left out at the border.
    table : TracksTable
        What it was derived from.
    record : IndexRecord
    derivation : str
        A digest of what the derived columns follow from.
    overwrite : bool, default False

    Raises
    ------
    FileExistsError
        If there is a file and ``overwrite`` is False.
    """
    import pandas as pd

    given = {name for name in table.columns if name in index.tracks and _same(table.columns[name], index.tracks[name])}
    arrays, metadata = {_TRACK: table.track_index, _ANCHOR: index.anchor_rows, "fov_index": table.fov_index}, {}
    # Not ``drop``, which copies what it keeps.
    derived = columns_of(index.tracks, [name for name in index.tracks if name not in given])
    for key, frame in ((_GIVEN, table.columns), (_DERIVED, pd.DataFrame(derived, copy=False))):
        own, metadata[key] = frame_arrays(frame, key.decode().rpartition(".")[2])
        arrays |= own
    arrays |= {"track_id": table.track_id, "track_fov": table.track_fov}
    arrays |= {f"forest.{name}": array for name, array in table.forest.arrays().items()}
    arrays |= {f"order.{name}": array for name, array in index.positives.order.arrays().items()}
    metadata |= {_RECORD: json.dumps(record.to_json()).encode(), _DERIVATION: derivation.encode()}
    metadata[_COLUMNS] = json.dumps(list(index.tracks)).encode()
    write_arrays(path, arrays, metadata, overwrite, remedy="pass overwrite to replace it")


class MappedIndex(NamedTuple):
    """An index in a file that is mapped into memory: every array is a part of the file.

    Parameters
    ----------
    table : TracksTable
    tracks : pandas.DataFrame
        Columns of the table, and derived ones.
    anchor_rows : ndarray of int
    order : SortedRows
        For the lookup of positives.
    record : IndexRecord
    identity : str
        Another one if the file has been replaced.
    """

    table: TracksTable
    tracks: pd.DataFrame
    anchor_rows: np.ndarray
    order: SortedRows
    record: IndexRecord
    identity: str


def mapped_identity(path: str | Path, derivation: str) -> str | None:
    """Return the identity of a mapped index, None for other files and where columns are derived from something else."""
    metadata = _metadata(Path(path))
    return _identity(metadata) if metadata.get(_DERIVATION, b"").decode() == derivation else None


def open_mapped_index(path: str | Path, registry: ExperimentRegistry) -> MappedIndex:
    """Map an index, with what is derived of it.

    Raises
    ------
    InputError
        If it is damaged, as far as a look at parts of it tells, see :func:`~dynaclr.index.mapped.map_arrays`.
    """
    import pandas as pd

    with _undamaged(path):
        arrays, metadata = map_arrays(path)
    record = IndexRecord.from_json(json.loads(metadata[_RECORD]))
    table = mapped_table(registry, record, arrays, metadata)
    derived = frame_of_arrays(arrays, metadata[_DERIVED])
    columns = columns_of(derived, derived) | columns_of(table.columns, table.columns)
    columns = {name: columns[name] for name in json.loads(metadata[_COLUMNS])}
    order = SortedRows.from_arrays(**{name: arrays[f"order.{name}"] for name in ("keys", "rows", "begin")})
    tracks = pd.DataFrame(columns, copy=False)
    return MappedIndex(table, tracks, arrays[_ANCHOR], order, record, _identity(metadata))


def mapped_table(
    registry: ExperimentRegistry, record: IndexRecord, arrays: dict[str, np.ndarray], metadata: dict[bytes, bytes]
) -> TracksTable:
    """Put the table of a mapped file together."""
    forest = LineageForest.from_arrays(
        **{name: arrays[f"forest.{name}"] for name in ("parent", "root", "enter", "leave")}
    )
    tracks = {"track_id": arrays["track_id"], "track_fov": arrays["track_fov"], "parent": forest.parent}
    columns = frame_of_arrays(arrays, metadata[_GIVEN])
    table = TracksTable(
        **_fovs(registry, record),
        **tracks,
        track_index=arrays[_TRACK],
        columns=columns,
        left_out=record.left_out,
    )
    table.__dict__.update(forest=forest, fov_index=arrays["fov_index"])  # where cached properties keep theirs
    return table


def _identity(metadata: dict[bytes, bytes]) -> str:
    return hashlib.blake2b(metadata[_RECORD] + metadata[_DERIVATION], digest_size=16).hexdigest()


def _same(one: pd.Series, other: pd.Series) -> bool:
    """Tell whether two columns are the same memory."""
    arrays = [getattr(column.array, "codes", column.array) for column in (one, other)]
    return np.shares_memory(*(np.asarray(array) for array in arrays))


def _metadata(path: Path) -> dict[bytes, bytes]:
    return read_mapped_metadata(path) if is_mapped(path) else pq.read_schema(path).metadata or {}


def check_index_file(path: str | Path, now: IndexRecord) -> None:
    """Refuse an index if what it was built from has changed.

    Parameters
    ----------
    path : str or Path
        File of :func:`write_index_file` or :func:`write_mapped_index`.
    now : IndexRecord
        State of the input as it is now.

    Raises
    ------
    MissingInputError
        If there is no file.
    InputError
        If it is no index, or stale; the message says what has changed.
    """
    path = Path(path)
    if not path.exists():
        raise MissingInputError(str(path), found="nothing", expected="a saved index", fix="dynaclr build-index")
    kind = "Arrow" if is_mapped(path) else "parquet"
    try:
        metadata = _metadata(path)
    except (pa.ArrowException, OSError, ValueError) as err:
        raise InputError(str(path), found=f"no {kind} file", expected="a saved index", fix=_REBUILD) from err
    if _RECORD not in metadata:
        raise InputError(str(path), found=f"a {kind} file of something else", expected="a saved index", fix=_REBUILD)
    with _undamaged(path):
        content = json.loads(metadata[_RECORD])
        refuse_newer(str(path), content.get("schema_version"), SCHEMA_VERSION, "dynaclr", content.get("written_by"))
        record = IndexRecord.from_json(content)
    changes = record.differences(now) if record else [f"layout {content.get('schema_version')} of the file"]
    if changes:
        more = f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        raise InputError(
            str(path),
            found=f"an index built from other input: {'; '.join(changes[:_SHOWN])}{more}",
            expected="the input that the index was built from",
            fix=_REBUILD,
        )


@contextmanager
def _undamaged(path: str | Path) -> Iterator[None]:
    """Say that a file is damaged where its pages, its record or its tracks cannot be read."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError) as err:
        what = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise InputError(str(path), found=f"a damaged file ({what})", expected="a saved index", fix=_REBUILD) from err


def _check_schema(schema: pa.Schema) -> None:
    """Compare columns, record and tracks with their check sum; those of parquet are of pages alone."""
    # Files of earlier versions have none.
    if _SHA256 in schema.metadata and schema.metadata[_SHA256] != _digest(schema):
        raise ValueError("the check sum of its record differs")


def _refuse_too_many(path: str | Path, n_rows: int, schema: pa.Schema) -> None:
    """Refuse rows that the memory does not hold: equal ones take no room in a file, however many are declared."""
    n_bytes = n_rows * sum(_value_bytes(field.type) for field in schema)
    fix = f"a smaller index, or one that is mapped: dynaclr build-index EXPERIMENTS.yml INDEX{MAPPED_SUFFIX}"
    refuse_too_large(str(path), n_bytes, field="num_rows", what=f"{n_rows:,} rows", fix=fix)


def _value_bytes(type_: pa.DataType) -> int:
    if pa.types.is_dictionary(type_):
        return _value_bytes(type_.index_type)
    return 8 if pa.types.is_large_string(type_) or pa.types.is_string(type_) else -(-type_.bit_width // 8)


def _digest(schema: pa.Schema) -> bytes:
    # Parquet keeps texts of categories with small offsets, whichever they were written with.
    types = [[field.name, str(field.type).replace("large_string", "string")] for field in schema]
    columns = json.dumps(types).encode()
    return hashlib.sha256(columns + schema.metadata[_RECORD] + schema.metadata[_TRACKS]).hexdigest().encode()


def _pack_tracks(table: TracksTable) -> bytes:
    tracks = pa.table({"track_id": table.track_id, "track_fov": table.track_fov, "parent": table.parent})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, tracks.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(tracks)
    return sink.getvalue()


def _unpack_table(
    registry: ExperimentRegistry, record: IndexRecord, packed: bytes, columns: dict[str, Any], track_index: np.ndarray
) -> TracksTable:
    import pandas as pd

    tracks = pa.ipc.open_stream(packed).read_all()
    return TracksTable(
        **_fovs(registry, record),
        **{name: tracks[name].to_numpy() for name in tracks.column_names},
        track_index=track_index,
        columns=pd.DataFrame(columns, copy=False),
        left_out=record.left_out,
    )


def _fovs(registry: ExperimentRegistry, record: IndexRecord) -> dict[str, Any]:
    infos = {(name, fov.name): fov for name, fovs in registry.fovs.items() for fov in fovs}
    number = {name: position for position, name in enumerate(record.experiments)}
    return {
        "experiments": tuple(record.experiments),
        "fovs": tuple(infos[key] for key in record.tables),
        "fov_experiment": np.array([number[name] for name, _ in record.tables], dtype=np.int32),
    }


def _to_pandas(column: pa.ChunkedArray) -> np.ndarray | pd.Categorical:
    if pa.types.is_dictionary(column.type):
        return column.to_pandas().array
    return column.to_numpy()
