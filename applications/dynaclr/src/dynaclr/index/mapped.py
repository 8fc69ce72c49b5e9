"""Arrays of any lengths in one Arrow file that is opened by mapping it: nothing is read before it is used.

All processes of a machine that open the file share its pages; none of them holds a copy. The file is one record batch
of one row, whose columns are lists, uncompressed: any Arrow library reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from viscy_data.files import replacing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame_arrays", "frame_of_arrays", "map_arrays", "read_mapped_metadata", "write_arrays"]

_BOOL, _FRAME = {b"dtype": b"bool"}, "{}.{}"


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
    for name, array in arrays.items():
        is_bool = isinstance(array, np.ndarray) and array.dtype == bool
        values = pa.array(array.view(np.uint8)) if is_bool else pa.array(array)
        columns.append(pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values))
        fields.append(pa.field(name, columns[-1].type, metadata=_BOOL if is_bool else None))
    schema = pa.schema(fields, metadata=dict(metadata))
    with (
        replacing(path, overwrite, remedy=remedy) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        writer.write_batch(pa.record_batch(columns, schema=schema))


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
    """
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    batch = reader.get_batch(0)
    arrays: dict[str, np.ndarray | pa.Array] = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        values = column.values  # noqa: PD011 - the whole list, of Arrow
        if not pa.types.is_large_string(values.type):
            values = values.to_numpy(zero_copy_only=True)
            values = values.view(bool) if field.metadata == _BOOL else values
        arrays[field.name] = values
    return arrays, batch.schema.metadata


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


def frame_of_arrays(arrays: Mapping[str, np.ndarray | pa.Array], layout: bytes) -> pd.DataFrame:
    """Put a table together from the arrays of :func:`frame_arrays`, which stay where they are."""
    import pandas as pd

    from dynaclr.index.observations import labelled

    columns: dict[str, np.ndarray | pd.Categorical] = {}
    sharing: dict[tuple[str, str], list[str]] = {}
    for column, (key, *names) in json.loads(layout).items():
        columns[column] = arrays[key]
        if names:
            sharing.setdefault(tuple(names), []).append(column)
    for (shared, dtype), own in sharing.items():
        # Few names are objects of Python, as in an index that was built; those of tracks stay in the file.
        if dtype == "string":
            names = pd.Index(pd.arrays.ArrowStringArray(arrays[shared]))
        else:
            names = pd.Index(arrays[shared].to_pylist(), dtype=dtype)
        labels = labelled(names, *(columns[column] for column in own))
        columns |= dict(zip(own, labels, strict=True))
    return pd.DataFrame(columns, copy=False)
