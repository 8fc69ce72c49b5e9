"""Parts of a prediction on disk: a folder of plain arrays each, written at once and read as far as needed.

``features.npy`` and, where there are any, ``projections.npy`` are float32, (N, F) and (N, P). ``columns.npz`` has a
member per column of the index, ``0``, ``1``, ...: numbers, or codes of the texts of ``<number>.texts``; ``sample`` says
where the rows are in the predicted dataset, and ``names`` what the columns are called.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.files import replacing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Part", "Rows"]

_COLUMNS = "columns.npz"


@dataclass(frozen=True)
class Rows:
    """Rows of a prediction.

    Parameters
    ----------
    features : ndarray, shape (N, F)
    projections : ndarray, shape (N, P), or None
    index : DataFrame
        N rows of index columns.
    sample : ndarray of int64, shape (N,)
        Position of each row in the predicted dataset.
    """

    features: np.ndarray
    projections: np.ndarray | None
    index: Any
    sample: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    @staticmethod
    def concatenate(rows: list[Rows]) -> Rows:
        """Join rows in order."""
        import pandas as pd

        projections = [r.projections for r in rows]
        return Rows(
            np.concatenate([r.features for r in rows]),
            None if any(p is None for p in projections) else np.concatenate(projections),
            pd.concat([r.index for r in rows], ignore_index=True),
            np.concatenate([r.sample for r in rows]),
        )


class Part:
    """A part on disk. Nothing is held but the names of its columns.

    Parameters
    ----------
    folder : Path
        Called ``<first>-<last>``, by the rows of its rank that it has, the last one excluded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first, self.last = map(int, folder.name.split("-"))

    def __len__(self) -> int:
        return self.last - self.first

    @staticmethod
    def write(folder: Path, rows: Rows, first: int) -> None:
        """Write rows, the first of which is number ``first``, into a part below ``folder``, complete or not at all."""
        from viscy_utils.embeddings.store import observation_columns

        members = {"sample": np.asarray(rows.sample, np.int64)}
        table, names = observation_columns(rows.index), []
        for number, (name, column) in enumerate(table.items()):
            values, texts = _values_and_texts(column)
            members[str(number)] = values
            if texts is not None:
                members[f"{number}.texts"] = _as_bytes(texts)
            names.append([name, values.dtype.str if texts is None else None])
        with replacing(folder / f"{first:012d}-{first + len(rows):012d}") as temporary:
            temporary.mkdir()
            np.savez(temporary / _COLUMNS, names=_as_bytes(names), **members)
            for key, matrix in (("features", rows.features), ("projections", rows.projections)):
                if matrix is not None:
                    np.save(temporary / f"{key}.npy", np.asarray(matrix, np.float32))

    @cached_property
    def dtypes(self) -> dict[Any, np.dtype | None]:
        """Types of the columns by name, None for texts."""
        with np.load(self.folder / _COLUMNS) as members:
            return {name: None if dtype is None else np.dtype(dtype) for name, dtype in _of_bytes(members["names"])}

    def sample(self) -> np.ndarray:
        """Return the position of each row in the predicted dataset."""
        with np.load(self.folder / _COLUMNS) as members:
            return members["sample"]

    def values(self, name: Any) -> np.ndarray:
        """Return the numbers of a column, or the codes of its texts: -1 where there is none."""
        with np.load(self.folder / _COLUMNS) as members:
            return members[str(list(self.dtypes).index(name))]

    def texts(self, name: Any) -> list[str]:
        """Return the different texts of a column, sorted."""
        with np.load(self.folder / _COLUMNS) as members:
            return _of_bytes(members[f"{list(self.dtypes).index(name)}.texts"])

    def matrix(self, key: str) -> np.ndarray | None:
        """Return ``features`` or ``projections``, mapped from the file; None where there are none."""
        path = self.folder / f"{key}.npy"
        return np.load(path, mmap_mode="r") if path.exists() else None

    def rows(self) -> Rows:
        """Read the whole part."""
        import pandas as pd

        columns = {
            name: self.values(name)
            if dtype is not None
            else pd.Categorical.from_codes(self.values(name), pd.Index(self.texts(name), dtype=object))
            for name, dtype in self.dtypes.items()
        }
        table = pd.DataFrame(columns, index=range(len(self)))
        return Rows(self.matrix("features"), self.matrix("projections"), table, self.sample())


def _values_and_texts(column: pd.Series) -> tuple[np.ndarray, list[str] | None]:
    """Take apart a column of an observation table."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        return np.asarray(column.cat.codes), list(column.cat.categories)
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy(), None
    return column.to_numpy(np.float64, na_value=np.nan), None  # numbers that pandas keeps with a mask


def _as_bytes(values: list) -> np.ndarray:
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


def _of_bytes(member: np.ndarray) -> list:
    return json.loads(member.tobytes())
