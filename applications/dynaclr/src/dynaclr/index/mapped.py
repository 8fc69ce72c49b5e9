"""Arrays of any lengths in one Arrow file that is opened by mapping it: nothing is read before it is used.

All processes of a machine that open the file share its pages; none of them holds a copy. The file is one record batch
of one row, whose columns are lists, uncompressed: any Arrow library reads it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from viscy_data.files import replacing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["columns_of", "frame_arrays", "frame_of_arrays", "map_arrays", "read_mapped_metadata", "write_arrays"]

_BOOL, _FRAME = {b"dtype": b"bool"}, "{}.{}"
_DIGEST = b"dynaclr.blake2b"
# What is compared at opening: arrays of up to a megabyte whole, larger ones in so many blocks from end to end, so that
# an index of any size is opened without being read.
_WHOLE_BYTES, _BLOCKS, _BLOCK_BYTES = 1 << 20, 64, 1 << 12


def write_arrays(
    path: str | Path,
    arrays: Mapping[str, np.ndarray | pa.Array],
    metadata: Mapping[bytes, bytes],
    overwrite: bool = False,
    *,
    remedy: str,
) -> None:
    """Write arrays beside their place and rename the file.

    Parameters
    ----------
    path : str or Path
    arrays : mapping of str to ndarray or pyarrow.Array
        Of one dimension.
    metadata : mapping of bytes to bytes
    overwrite : bool, default False
    remedy : str
        What the error about an existing file advises.

    Raises
    ------
    FileExistsError
        If there is a file and ``overwrite`` is False.
    """
    fields, columns = [], []
    metadata = {key: value for key, value in metadata.items() if key != _DIGEST}
    for name, array in arrays.items():
        is_bool = isinstance(array, np.ndarray) and array.dtype == bool
        values = pa.array(array.view(np.uint8)) if is_bool else pa.array(array)
        columns.append(pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values))
        fields.append(pa.field(name, columns[-1].type, metadata=_BOOL if is_bool else None))
    batch = pa.record_batch(columns, schema=pa.schema(fields, metadata=metadata))
    batch = batch.replace_schema_metadata(metadata | {_DIGEST: _digest(batch)})
    with (
        replacing(path, overwrite, remedy=remedy) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, batch.schema) as writer,
    ):
        writer.write_batch(batch)


def read_mapped_metadata(path: str | Path) -> dict[bytes, bytes]:
    """Read what was written beside the arrays.

    Raises
    ------
    pyarrow.ArrowInvalid
        If it is no Arrow file, or not all of it.
    """
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).schema.metadata or {}


def map_arrays(path: str | Path) -> tuple[dict[str, np.ndarray | pa.Array], dict[bytes, bytes]]:
    """Map the arrays of a file into memory: read-only, and texts as Arrow has them.

    Raises
    ------
    pyarrow.ArrowInvalid
        If it is no Arrow file, or not all of it.
    ValueError
        If it has changed: metadata and arrays of up to a megabyte are compared whole with the check sum that was
        written, larger arrays in blocks.
    """
    with Path(path).open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    batch = pa.ipc.open_file(pa.py_buffer(pages)).get_batch(0)
    batch.validate()
    with _not_read_ahead(pages):
        # Files of earlier versions have no check sum.
        if batch.schema.metadata.get(_DIGEST) not in (None, _digest(batch)):
            raise ValueError("its check sum differs")
    arrays: dict[str, np.ndarray | pa.Array] = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        values = column.values  # noqa: PD011 - the whole list, of Arrow
        if not pa.types.is_large_string(values.type):
            values = values.to_numpy(zero_copy_only=True)
            values = values.view(bool) if field.metadata == _BOOL else values
        arrays[field.name] = values
    return arrays, batch.schema.metadata


@contextmanager
def _not_read_ahead(pages: mmap.mmap) -> Iterator[None]:
    """Have the system read what is asked for alone: megabytes around each of the blocks would be the whole file."""
    can_be_told = hasattr(mmap, "MADV_RANDOM")  # not on Windows
    if can_be_told:
        pages.madvise(mmap.MADV_RANDOM)
    yield
    if can_be_told:
        pages.madvise(mmap.MADV_NORMAL)


def _digest(batch: pa.RecordBatch) -> bytes:
    """Return the check sum of metadata, types, lengths and, of large arrays in blocks, the bytes of a batch."""
    said = sorted((key, value) for key, value in batch.schema.metadata.items() if key != _DIGEST)
    digest = hashlib.blake2b(repr(said).encode(), digest_size=16)
    for field, column in zip(batch.schema, batch.columns, strict=True):
        values = column.values  # noqa: PD011 - the whole list, of Arrow
        digest.update(repr((field.name, str(values.type), len(values))).encode())
        for content in _bytes_of(values):
            for block in _blocks(content):
                digest.update(block)
    return digest.hexdigest().encode()


def _bytes_of(values: pa.Array) -> list[np.ndarray]:
    """Return an array as bytes; that of texts as its offsets and its characters."""
    if not len(values):
        return []
    if not pa.types.is_large_string(values.type):
        return [values.to_numpy(zero_copy_only=True).view(np.uint8)]
    offsets = np.frombuffer(values.buffers()[1], np.int64)[: len(values) + 1]
    characters = np.frombuffer(values.buffers()[2] or b"", np.uint8)[: offsets[-1]]
    return [offsets.view(np.uint8), characters]


def _blocks(content: np.ndarray) -> Iterator[np.ndarray]:
    if len(content) <= _WHOLE_BYTES:
        yield content
        return
    for start in np.linspace(0, len(content) - _BLOCK_BYTES, _BLOCKS, dtype=np.int64):
        yield content[start : start + _BLOCK_BYTES]


def frame_arrays(frame: pd.DataFrame, name: str) -> tuple[dict[str, np.ndarray | pa.Array], bytes]:
    """Take a table apart into arrays, and say how they are put together; categorical columns may share their names."""
    import pandas as pd

    arrays: dict[str, np.ndarray | pa.Array] = {}
    columns, texts = {}, {}
    for column in frame.columns:
        key = _FRAME.format(name, column)
        columns[column] = [key]
        if isinstance(frame[column].dtype, pd.CategoricalDtype):
            categories = frame[column].cat.categories
            shared = next((other for other, known in texts.items() if known is categories), f"{key}.names")
            texts.setdefault(shared, categories)
            arrays[shared] = pa.array(categories, pa.large_string(), from_pandas=True)
            arrays[key] = frame[column].array.codes
            columns[column] += [shared, str(categories.dtype)]
        else:
            arrays[key] = frame[column].to_numpy()
    return arrays, json.dumps(columns).encode()


def columns_of(frame: pd.DataFrame, names: Iterable[str]) -> dict[str, np.ndarray | pd.Categorical]:
    """Take columns out of a table to make another one of them, without a look at what is in them.

    Numbers come as arrays of numpy: in those of its own pandas looks for missing values.
    """
    import pandas as pd

    columns = {name: frame[name] for name in names}
    return {
        name: column.array if isinstance(column.dtype, pd.CategoricalDtype) else column.to_numpy()
        for name, column in columns.items()
    }


def frame_of_arrays(arrays: Mapping[str, np.ndarray | pa.Array], layout: bytes) -> pd.DataFrame:
    """Put a table together from the arrays of :func:`frame_arrays`, which stay where they are."""
    import pandas as pd

    from dynaclr.index.observations import known_different, labelled

    columns: dict[str, np.ndarray | pd.Categorical] = {}
    sharing: dict[tuple[str, str], list[str]] = {}
    for column, (key, *names) in json.loads(layout).items():
        columns[column] = arrays[key]
        if names:
            sharing.setdefault(tuple(names), []).append(column)
    for (shared, dtype), own in sharing.items():
        # Few names are objects of Python, as in an index that was built; those of tracks stay in the file.
        if dtype == "string":
            names = known_different(pd.Index(pd.arrays.ArrowStringArray(arrays[shared])))
        else:
            names = pd.Index(arrays[shared].to_pylist(), dtype=dtype)
        labels = labelled(names, *(columns[column] for column in own))
        columns |= dict(zip(own, labels, strict=True))
    return pd.DataFrame(columns, copy=False)
