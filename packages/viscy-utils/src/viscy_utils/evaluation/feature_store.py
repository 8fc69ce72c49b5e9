"""Features of all cells of a dataset in a store that is read as embeddings are.

Rows are written in parts beside the output while they are computed, in the order of the pieces; what was stopped goes
on, and all parts become one store at the end, in the order of the dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.files import refuse_existing
from viscy_data.optional import require
from viscy_data.patch_store import CellBoxes
from viscy_data.pieces import map_pieces
from viscy_utils.embeddings.origin import ORIGIN, computed_origin, manifest_of, origin_as_uns
from viscy_utils.embeddings.part_files import Rows
from viscy_utils.embeddings.prediction_parts import PredictionParts
from viscy_utils.embeddings.reading import ArrayRows, open_embeddings
from viscy_utils.embeddings.store import import_anndata
from viscy_utils.evaluation.feature import CellFeatures
from viscy_utils.evaluation.feature_pieces import FeaturePiece, LabelImage, compute_piece, feature_names

if TYPE_CHECKING:
    import pandas as pd

    from viscy_data.batches.dataset import PatchDataset

__all__ = ["FeatureRun", "missing_features"]

_PIECE_ROWS, _PIECE_BYTES = 256, 1 << 26
_PART_ROWS = 4096


@dataclass(frozen=True)
class FeatureRun:
    """Features that are to be computed, and where to.

    Parameters
    ----------
    output : Path
        AnnData zarr store.
    dataset : PatchDataset
        Of all cells in their order (not ``fit``); the middle slice of what it reads is looked at, as it is stored. Its
        cells have ``track_id``.
    hours : ndarray of float, shape (N,)
        Time of each cell, for its speed.
    labels : sequence of LabelImage, optional
        One per FOV of the dataset.
    record : mapping
        Plain values: what the features are computed of, ``data_record()`` of the data module.
    settings : mapping
        Plain values: what else decides them.
    """

    output: Path
    dataset: PatchDataset
    hours: np.ndarray
    labels: Sequence[LabelImage] | None
    record: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """Of the features: channels are called as in the stores if all agree, else by position as in transforms."""
        boxes, n_fovs = self._boxes, range(len(self.dataset.fovs))
        of_fovs = [boxes.channel_names(number) for number in n_fovs]
        channels = []
        for position, key in enumerate(self.dataset.keys):
            different = {names[position] for names in of_fovs} - {None}
            channels.append(different.pop() if len(different) == 1 else key)
        return feature_names(channels, with_masks=self.labels is not None)

    @cached_property
    def _boxes(self) -> CellBoxes:
        boxes = self.dataset.cell_boxes()
        middle = (boxes.slices.start + boxes.slices.stop) // 2
        return replace(boxes, slices=slice(middle, middle + 1))

    def write(
        self,
        *,
        overwrite: bool = False,
        workers: int | None = None,
        dask: str | None = None,
        advance: Callable[[int], object] = lambda n_cells: None,
    ) -> list[str]:
        """Compute what an interrupted run of the same has not written, and write the store.

        Parameters
        ----------
        overwrite : bool, default False
            Replace a store, and begin anew where a run was interrupted.
        workers, dask
            Who computes, see :func:`viscy_data.pieces.map_pieces`.
        advance : callable, optional
            Called with the number of cells that are done more.

        Returns
        -------
        list of str
            Names of the features.

        Raises
        ------
        FileExistsError
            If there is something at ``output``, unless ``overwrite`` is set.
        InputError
            If an interrupted run was of something else, or pixels cannot be read.
        ImportError
            Without the extra ``features`` or ``anndata``.
        """
        import_anndata()
        for module in ("mahotas", "skimage", "scipy"):
            require(module, extra="features", package="viscy-utils")
        refuse_existing(self.output, overwrite, remedy="choose another output, or add --overwrite")
        names = self.names
        settings = {"features": names, **self.settings}
        model = f"{CellFeatures.__module__}.{CellFeatures.__qualname__}"
        origin = computed_origin(model, {"path": ""}, dict(self.record), prediction=settings)
        parts = PredictionParts(self.output)
        if overwrite:
            parts.remove()
        parts.check(manifest_of(origin))
        parts.create(manifest_of(origin))
        done = parts.n_rows()
        advance(done)
        pieces = self._pieces(done)
        pending: list[Rows] = []
        with _one_thread_each():
            for rows in _joined(pieces, map_pieces(compute_piece, pieces, workers=workers, dask=dask), self.dataset):
                pending.append(rows)
                advance(len(rows))
                if sum(map(len, pending)) >= _PART_ROWS or done + sum(map(len, pending)) == len(self.dataset):
                    parts.write(Rows.concatenate(pending), done)
                    done += sum(map(len, pending))
                    pending = []
        parts.merge(overwrite, {ORIGIN: origin_as_uns(origin)}, names)
        return names

    def _pieces(self, done: int) -> list[FeaturePiece]:
        """Divide the cells that are to be done, FOV by FOV and frame by frame."""
        boxes = self._boxes
        order = np.lexsort((boxes.places[:, 1], boxes.places[:, 0]))
        ends = np.cumsum(np.bincount(boxes.places[:, 0], minlength=len(boxes.fovs)))
        step = max(1, min(_PIECE_ROWS, _PIECE_BYTES // (4 * int(np.prod(boxes.size)))))
        pieces: list[FeaturePiece] = []
        for number, (begin, end) in enumerate(zip(ends - np.diff(ends, prepend=0), ends, strict=True)):
            of_fov = order[begin:end]
            tracks = None
            for first in range(max(done - begin, 0), len(of_fov), step):
                rows = of_fov[first : first + step]
                is_first, tracks = tracks is None, self._tracks(of_fov) if tracks is None else tracks
                places = boxes.places[rows]
                places[:, 0] = 0
                own = replace(
                    boxes, fovs=boxes.fovs[number : number + 1], channels=boxes.channels[number][None], places=places
                )
                labels = None if self.labels is None else self.labels[number]
                pieces.append(FeaturePiece(own, rows, labels, first, tracks if is_first else None))
        return pieces

    def _tracks(self, rows: np.ndarray) -> pd.DataFrame:
        table = self.dataset.cells[["track_id", "y", "x"]].iloc[rows].reset_index(drop=True)
        return table.assign(t=np.asarray(self.hours, np.float64)[rows])


def _one_thread_each() -> AbstractContextManager[Any]:
    """Keep linear algebra from starting threads in every thread; workers of Dask do so by themselves."""
    if find_spec("threadpoolctl") is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def _joined(pieces: Sequence[FeaturePiece], results: Iterator[Any], dataset: PatchDataset) -> Iterator[Rows]:
    """Put the features of the cells of each piece, of their tracks, and their records together."""
    import pandas as pd

    motion = np.zeros((0, 0), np.float32)
    for piece, computed in zip(pieces, results, strict=True):
        motion = motion if computed.motion is None else computed.motion
        of_tracks = motion[piece.first : piece.first + len(piece.rows)]
        index = pd.DataFrame(dataset.records(piece.rows))
        yield Rows(np.concatenate([computed.cells, of_tracks], axis=1), None, index, piece.rows)


def missing_features(path: str | Path) -> dict[str, int]:
    """Count the cells of a store that lack a feature, by its name; those that all cells have are not named."""
    store = open_embeddings(path)
    missing = np.zeros(len(store.names), np.int64)
    for block in ArrayRows(store.features, np.arange(len(store.obs))):
        missing += np.isnan(block).sum(axis=0)
    return {name: int(count) for name, count in zip(store.names, missing, strict=True) if count}
