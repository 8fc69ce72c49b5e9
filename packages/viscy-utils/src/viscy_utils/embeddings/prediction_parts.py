"""What a prediction has written so far: parts per rank, the manifest they belong to, and their merging.

``<output>.parts/manifest.json`` says what was predicted with what; ``rank<k>/<first>-<last>.zarr`` are complete AnnData
stores with the rows ``first`` to ``last`` (excluded) of that rank. Nothing else counts as written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from viscy_data.errors import InputError
from viscy_data.files import replacing
from viscy_utils.embeddings.store import (
    SAMPLE_COLUMN,
    add_array,
    build_anndata,
    edit_store,
    import_anndata,
    observation_table,
    parts_path_of,
    write_anndata,
)

__all__ = ["PredictionParts", "Rows"]

_BLOCK_ROWS = 4096


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


class PredictionParts:
    """The parts of one output.

    Parameters
    ----------
    output_path : Path
        Where the merged store will be.
    rank : int, default 0
        Whose parts are written.
    """

    def __init__(self, output_path: Path, rank: int = 0) -> None:
        self.output_path = Path(output_path)
        self.path = parts_path_of(output_path)
        self._own = self.path / f"rank{rank}"

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Compare with what the parts of an earlier run belong to.

        Raises
        ------
        InputError
            If they belong to another model, other data or another number of ranks, or if nobody knows the data.
        """
        if not (self.path / "manifest.json").exists() and not self._written():  # killed before there was anything
            return
        if manifest.get("data") is None:
            raise InputError(
                str(self.path),
                field="data",
                found="parts of an interrupted prediction, and a data module that does not say what its data are",
                expected="a data module with data_record",
                fix="start over with overwrite: true",
            )
        found = self._read_manifest()
        different = [key for key in {**manifest, **found} if found.get(key) != manifest.get(key)]
        if different:
            raise InputError(
                str(self.path),
                field=", ".join(different),
                found="; ".join(f"{key}: {found.get(key)!r}" for key in different),
                expected="; ".join(f"{key}: {manifest.get(key)!r}" for key in different),
                fix="repeat the interrupted prediction as it was, or start over with overwrite: true",
            )

    def _read_manifest(self) -> dict[str, Any]:
        try:
            return json.loads((self.path / "manifest.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def create(self, manifest: Mapping[str, Any]) -> None:
        """Make the folder, or keep the one there is."""
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self.path / "manifest.json", overwrite=True) as temporary:
            temporary.write_text(json.dumps(dict(manifest), indent=1))

    def _written(self) -> list[Path]:
        return sorted(self.path.glob("rank*/[0-9]*.zarr"))

    def remove(self) -> None:
        """Delete all parts."""
        shutil.rmtree(self.path, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Delete the folder of a run that has written no row of any rank."""
        if not any(self.path.glob("rank*")):
            self.remove()

    def n_rows(self) -> int:
        """Count the rows this rank has written; parts after a gap do not count and are deleted."""
        done = 0
        for store in sorted(self._own.glob("[0-9]*.zarr")):
            first, last = map(int, store.stem.split("-"))
            if first != done:
                shutil.rmtree(store)
                continue
            done = last
        return done

    def write(self, rows: Rows, first: int) -> None:
        """Write rows ``first`` to ``first + len(rows)`` of this rank as one part."""
        obs = observation_table(rows.index)
        obs[SAMPLE_COLUMN] = np.asarray(rows.sample, np.int64)
        obsm = {} if rows.projections is None else {"X_projections": rows.projections}
        name = f"{first:012d}-{first + len(rows):012d}.zarr"
        write_anndata(build_anndata(rows.features, obs, obsm), self._own / name)

    def merge(self, overwrite: bool = False, uns: Mapping[str, Any] | None = None) -> int:
        """Merge the parts of all ranks into the output, in the order of the dataset, and delete them.

        Features are copied in blocks: memory does not grow with their number; the table of observations is held.

        Parameters
        ----------
        overwrite : bool, default False
            Replace an existing output.
        uns : mapping, optional
            What the output holds beside its rows.

        Returns
        -------
        int
            Number of rows.

        Raises
        ------
        InputError
            If there is no part.
        FileExistsError
            If there is an output and ``overwrite`` is False; the parts stay.
        """
        stores = self._written()
        if not stores:
            raise InputError(str(self.path), found="no rows", fix="check what the prediction runs over")
        with replacing(self.output_path, overwrite) as temporary:
            n_rows = _merge(stores, temporary, uns or {})
        self.remove()
        return n_rows


def _merge(stores: list[Path], target: Path, uns: Mapping[str, Any]) -> int:
    import pandas as pd

    groups = [zarr.open_group(store, mode="r") for store in stores]
    read_elem = import_anndata().io.read_elem
    tables = [read_elem(group["obs"]) for group in groups]
    obs = pd.concat(tables, ignore_index=True)
    order = np.argsort(obs.pop(SAMPLE_COLUMN).to_numpy(), kind="stable")
    starts = np.cumsum([0, *map(len, tables)])
    obs = observation_table(obs.iloc[order])
    keys = ["X", *(f"obsm/{key}" for key in groups[0]["obsm"].array_keys())]
    write_anndata(import_anndata().AnnData(obs=obs, var=read_elem(groups[0]["var"]), uns=dict(uns)), target)
    with edit_store(target) as group:
        for key in keys:
            sources = [part[key] for part in groups]
            array = add_array(group, key, (len(obs), sources[0].shape[1]))
            step = array.chunks[0] * max(1, _BLOCK_ROWS // array.chunks[0])
            for begin in range(0, len(obs), step):
                array[begin : begin + step] = _gather(sources, starts, order[begin : begin + step])
    return len(obs)


def _gather(sources: list[zarr.Array], starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Read rows, numbered through all sources, from those that have them."""
    block = np.empty((len(rows), sources[0].shape[1]), np.float32)
    owner = np.searchsorted(starts, rows, side="right") - 1
    for number in np.unique(owner):
        here = owner == number
        local = rows[here] - starts[number]
        span = sources[number][local.min() : local.max() + 1]
        block[here] = span[local - local.min()]
    return block
