"""The parts of a prediction become one AnnData store, block by block.

Beside a block, what is held grows by 8 bytes per row, at most 24 for a moment: the order of the rows, and digests of
their names, which tell whether one comes twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_utils.embeddings.part_files import Part
from viscy_utils.embeddings.store import (
    NAME_COLUMNS,
    add_array,
    edit_store,
    import_anndata,
    row_names,
    write_anndata,
)

if TYPE_CHECKING:
    import pandas as pd
    import zarr

__all__ = ["merge_parts"]

_MATRICES = {"X": "features", "obsm/X_projections": "projections"}


def merge_parts(
    folders: Sequence[Path],
    target: Path,
    uns: Mapping[str, Any],
    feature_names: Sequence[str] | None = None,
    *,
    block_rows: int = 2**16,
) -> int:
    """Write the rows of all parts, in the order of the dataset, to an AnnData store.

    Parameters
    ----------
    folders : sequence of Path
        Parts, at least one; a column that some of them lack is missing for their rows.
    target : Path
        The store.
    uns : mapping
        What it holds beside the rows.
    feature_names : sequence of str, optional
        Different ones; features are numbered by default.
    block_rows : int, default 65536
        Rows of a column that are held; of features and projections a sixteenth.

    Returns
    -------
    int
        Number of rows.
    """
    import pandas as pd

    rows = _JoinedRows([Part(folder) for folder in folders], block_rows)
    columns = rows.columns()
    names = feature_names or [str(i) for i in range(rows.parts[0].matrix("features").shape[1])]
    empty = pd.DataFrame({name: [] for name in columns}, index=pd.Index([], dtype=object))
    var = pd.DataFrame(index=pd.Index(list(names), dtype=object))
    write_anndata(import_anndata().AnnData(obs=empty, var=var, uns=dict(uns)), target)
    with edit_store(target) as group:
        obs = group["obs"]
        for column, name in zip(columns.values(), obs.attrs["column-order"], strict=True):
            _write_column(obs, name, len(rows), (column.read(rows, *block) for block in rows.blocks()))
        _write_names(obs, rows, {name: columns[name] for name in NAME_COLUMNS if name in columns})
        for name, key in _MATRICES.items():
            _write_matrix(group, name, rows, key)
    return len(rows)


class _JoinedRows:
    """Rows of several parts, numbered by their place in the dataset."""

    def __init__(self, parts: list[Part], block_rows: int) -> None:
        self.parts, self.block_rows = parts, block_rows
        self._starts = np.cumsum([0, *map(len, parts)])
        self._order = np.argsort(np.concatenate([part.sample() for part in parts]), kind="stable")

    def __len__(self) -> int:
        return len(self._order)

    def blocks(self, step: int | None = None) -> Iterator[tuple[int, int]]:
        """Say where blocks begin and end."""
        step = step or self.block_rows
        return ((begin, min(begin + step, len(self))) for begin in range(0, len(self), step))

    def take(self, begin: int, end: int, read: Callable[[Part], np.ndarray], out: np.ndarray) -> np.ndarray:
        """Fill ``out`` with rows ``begin`` to ``end`` of what is read of each part that has some of them."""
        rows = self._order[begin:end]
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(owner):
            here = owner == number
            out[here] = read(self.parts[number])[rows[here] - self._starts[number]]
        return out

    def columns(self) -> dict[Any, _Column]:
        """Say what the columns of all parts are together, by name, as they come first."""
        names = dict.fromkeys(name for part in self.parts for name in part.dtypes)
        return {name: _Column.of(name, self.parts) for name in names}


@dataclass(frozen=True)
class _Column:
    """A column of all parts: numbers of one type, or the sorted texts that it has."""

    name: Any
    dtype: np.dtype | None
    texts: pd.Index | None

    @classmethod
    def of(cls, name: Any, parts: Sequence[Part]) -> _Column:
        import pandas as pd

        dtypes = {part.dtypes.get(name, np.dtype(np.float64)) for part in parts}  # NaN where a part lacks it
        flags = {dtype is not None and dtype.kind == "b" for dtype in dtypes}
        if None in dtypes or len(flags) > 1:
            texts = set().union(*(_texts_of(part, name)[1] for part in parts if name in part.dtypes))
            return cls(name, None, pd.Index(sorted(texts), dtype=object))
        return cls(name, np.result_type(*dtypes), None)

    def read(self, rows: _JoinedRows, begin: int, end: int) -> np.ndarray | pd.Categorical:
        """Return the values of some rows."""
        import pandas as pd

        if self.dtype is not None:
            return rows.take(begin, end, self._numbers, np.empty(end - begin, self.dtype))
        codes = rows.take(begin, end, self._codes, np.empty(end - begin, np.int64))
        return pd.Categorical.from_codes(codes, self.texts)

    def _numbers(self, part: Part) -> np.ndarray:
        return part.values(self.name) if self.name in part.dtypes else np.full(len(part), np.nan)

    def _codes(self, part: Part) -> np.ndarray:
        if self.name not in part.dtypes:
            return np.full(len(part), -1)
        codes, texts = _texts_of(part, self.name)
        return np.append(self.texts.get_indexer(texts), -1)[codes]


def _texts_of(part: Part, name: Any) -> tuple[np.ndarray, list[str]]:
    """Return codes and texts of a column, those of numbers where others have texts under this name."""
    values = part.values(name)
    if part.dtypes[name] is None:
        return values, part.texts(name)
    different, codes = np.unique(values, return_inverse=True)
    known = ~np.isnan(different) if different.dtype.kind == "f" else np.ones(len(different), bool)
    return np.where(known[codes], codes, -1), [str(value) for value in different[known].tolist()]


def _write_column(obs: zarr.Group, name: str, n_rows: int, blocks: Iterator[np.ndarray | pd.Categorical]) -> None:
    """Have AnnData write the first block, which decides the layout, and add the others to it."""
    done = 0
    for values in blocks:
        if not done:
            import_anndata().io.write_elem(obs, name, values)
            array = obs[f"{name}/codes" if hasattr(values, "codes") else name]
            array.resize((n_rows,))
        else:
            array[done : done + len(values)] = getattr(values, "codes", values)
        done += len(values)


def _write_names(obs: zarr.Group, rows: _JoinedRows, columns: Mapping[str, _Column]) -> None:
    """Write the names of all rows, and once more those that come twice, with their number."""
    import pandas as pd

    digests = np.empty(len(rows), np.uint64)

    def named() -> Iterator[tuple[int, int, pd.Series, np.ndarray]]:
        for begin, end in rows.blocks():
            table = pd.DataFrame({name: column.read(rows, begin, end) for name, column in columns.items()})
            names = row_names(table if len(columns) else pd.DataFrame(index=range(begin, end)))
            yield begin, end, names, pd.util.hash_array(names.str.lower().to_numpy(object), categorize=False)

    def first_pass() -> Iterator[np.ndarray]:
        for begin, end, names, digest in named():
            digests[begin:end] = digest
            yield names.to_numpy(object)

    index = obs.attrs["_index"]
    _write_column(obs, index, len(rows), first_pass())
    digests.sort()
    repeated = np.unique(digests[1:][digests[1:] == digests[:-1]])
    counts: Counter[str] = Counter()
    for begin, end, names, digest in named() if len(repeated) else ():
        values = names.to_numpy(object, copy=True)  # what pandas 3 gives without a copy is read-only
        for row in np.flatnonzero(np.isin(digest, repeated)).tolist():
            folded = values[row].lower()
            values[row] += f"-{counts[folded]}" if counts[folded] else ""
            counts[folded] += 1
        obs[index][begin:end] = values


def _write_matrix(group: zarr.Group, name: str, rows: _JoinedRows, key: str) -> None:
    """Write the features or projections, if all parts have them."""
    widths = [None if (matrix := part.matrix(key)) is None else matrix.shape[1] for part in rows.parts]
    if None in widths:
        return
    array = add_array(group, name, (len(rows), widths[0]))
    step = array.chunks[0] * max(1, rows.block_rows // 16 // array.chunks[0])
    for begin, end in rows.blocks(step):
        array[begin:end] = rows.take(
            begin, end, lambda part: part.matrix(key), np.empty((end - begin, widths[0]), np.float32)
        )
