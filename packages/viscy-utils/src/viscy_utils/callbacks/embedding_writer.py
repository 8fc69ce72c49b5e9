"""Write predictions to an AnnData store as they come.

Each rank writes parts while it predicts; when all are done the first rank merges them. A run that is killed leaves its
complete parts readable (:func:`read_embedding_dataset` on ``<output>.parts``), and the same command continues it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from viscy_data.errors import InputError
from viscy_data.files import refuse_existing, replacing
from viscy_utils.embeddings.origin import ORIGIN, manifest_of, origin_as_uns, prediction_origin
from viscy_utils.embeddings.part_files import Rows
from viscy_utils.embeddings.prediction_parts import PredictionParts
from viscy_utils.embeddings.reading import get_available_index_columns, read_embedding_dataset
from viscy_utils.embeddings.reductions import add_reductions, require_reductions
from viscy_utils.embeddings.store import (
    build_anndata,
    import_anndata,
    observation_table,
    write_anndata,
)
from viscy_utils.lightning_workarounds import NoBatchTracking, before_loaders_of_prediction

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EmbeddingWriter", "get_available_index_columns", "read_embedding_dataset", "write_embedding_dataset"]

_logger = logging.getLogger(__name__)

_INTERVALS = ("batch", "epoch", "batch_and_epoch")
_REMEDY = "choose another output_path or set overwrite: true"


def write_embedding_dataset(
    output_path: Path,
    features: np.ndarray,
    index_df: pd.DataFrame,
    projections: np.ndarray | None = None,
    umap_kwargs: dict[str, Any] | None = None,
    phate_kwargs: dict[str, Any] | None = None,
    pca_kwargs: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write embeddings to an AnnData zarr store.

    Parameters
    ----------
    output_path : Path
        The store.
    features : ndarray, shape (N, F)
        Goes to ``X`` as float32.
    index_df : DataFrame
        N rows of index columns; slashes around FOV names are removed.
    projections : ndarray, shape (N, P), optional
        Goes to ``obsm["X_projections"]``.
    umap_kwargs, phate_kwargs, pca_kwargs : dict, optional
        Arguments of reductions to compute afterwards, over their defaults; None or empty computes none.
    overwrite : bool, default False
        Replace an existing store, once the new one is complete.

    Raises
    ------
    FileExistsError
        If the store exists and ``overwrite`` is False.
    """
    output_path = Path(output_path)
    obsm = {} if projections is None else {"X_projections": projections}
    with replacing(output_path, overwrite, remedy=_REMEDY) as temporary:
        write_anndata(build_anndata(features, observation_table(index_df), obsm), temporary)
    add_reductions(output_path, {"pca": pca_kwargs, "umap": umap_kwargs, "phate": phate_kwargs})


class EmbeddingWriter(BasePredictionWriter):
    """Write the features and projections that a module predicts.

    Predictions are dicts with ``features`` (B, F), optional ``projections`` (B, P) and ``index`` (a list of dicts or a
    dict of columns). Where there are no features, ``latent`` (B, F) is written, as variational autoencoders return.

    Parameters
    ----------
    output_path : Path
        AnnData zarr store to write.
    write_interval : {"batch", "epoch", "batch_and_epoch"}, default "epoch"
        ``"batch"`` writes a part after every batch; the others whenever ``part_rows`` rows have come. The store is
        complete at the end in either case.
    umap_kwargs, phate_kwargs, pca_kwargs : dict, optional
        Arguments of reductions to compute when the embeddings are on disk; None or empty computes none.
    overwrite : bool, default False
        Replace an existing store, and start over where an interrupted run left parts.
    part_rows : int, default 16384
        Rows held in memory before they are written.

    Notes
    -----
    ``uns["origin"]`` says where the embeddings come from, see :func:`~viscy_utils.embeddings.origin.read_origin`:
    checkpoint with its hash and step, configuration, versions, data with digests of their stores and tables, date.
    A module may say more: ``prediction_record()`` what decides its predictions beside weights and data, and
    ``prediction_uns()`` what else goes to ``uns``.

    Raises
    ------
    ValueError
        For an unknown interval or a non-positive number of rows.
    FileExistsError
        At set-up, if the store exists and ``overwrite`` is False.
    ImportError
        At set-up, if a reduction needs an extra that is not installed.
    InputError
        At set-up, if the parts of an interrupted run belong to another model or other data.
    """

    def __init__(
        self,
        output_path: Path,
        write_interval: Literal["batch", "epoch", "batch_and_epoch"] = "epoch",
        umap_kwargs: dict | None = None,
        phate_kwargs: dict | None = None,
        pca_kwargs: dict | None = None,
        overwrite: bool = False,
        part_rows: int = 16384,
    ) -> None:
        if write_interval not in _INTERVALS:
            raise ValueError(f"write_interval must be one of {', '.join(_INTERVALS)}, got {write_interval!r}")
        if part_rows < 1:
            raise ValueError(f"part_rows must be positive, got {part_rows}")
        super().__init__("batch")
        self.interval = NoBatchTracking()  # rows are numbered below
        self.output_path = Path(output_path)
        self.write_interval, self.overwrite = write_interval, overwrite
        self.part_rows = 1 if write_interval == "batch" else part_rows
        self._reductions = {"pca": pca_kwargs, "umap": umap_kwargs, "phate": phate_kwargs}
        self._parts: PredictionParts | None = None
        self._pending: list[Rows] = []
        self._n_written = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse existing output before anything is computed."""
        if stage == "predict":
            import_anndata()
            require_reductions(self._reductions)
            refuse_existing(self.output_path, self.overwrite, remedy=_REMEDY)
            before_loaders_of_prediction(trainer, lambda: self._begin(trainer, pl_module))

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is predicted, and continue an interrupted prediction of the same."""
        self._parts = PredictionParts(self.output_path, trainer.global_rank)
        self._origin = trainer.strategy.broadcast(self._describe(trainer, pl_module))
        manifest = manifest_of(self._origin)
        if not self.overwrite:
            self._parts.check(manifest)
        trainer.strategy.barrier("every rank has checked the parts")
        if trainer.is_global_zero:
            if self.overwrite:
                self._parts.remove()
            self._parts.create(manifest)
        trainer.strategy.barrier("the folder of parts is ready")
        self._pending, self._n_written = [], self._parts.n_rows()
        if self._n_written:
            _skip(trainer, self._n_written, self._parts.path)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the samplers: they know which sample comes next."""
        loaders = trainer.predict_dataloaders
        loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
        self._orders = [_positions(loader) for loader in loaders]
        self._offsets = np.cumsum([0, *(_n_samples(loader) for loader in loaders)])

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the rows of a batch and write a part when there are enough."""
        features, projections, index = _read_prediction(outputs)
        positions = np.fromiter(islice(self._orders[dataloader_idx], len(features)), np.int64)
        if len(positions) < len(features):  # a loader without a sampler that can be followed
            here = self._n_written + sum(map(len, self._pending)) + np.arange(len(features))
            positions = here * trainer.world_size + trainer.global_rank
        self._pending.append(Rows(features, projections, index, positions + self._offsets[dataloader_idx]))
        if sum(map(len, self._pending)) >= self.part_rows:
            self._flush()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what has been predicted before the run ends; a run that was refused leaves nothing behind."""
        self._flush()
        if self._parts is not None and trainer.is_global_zero:
            self._parts.remove_if_empty()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the last part; the first rank merges and then reduces.

        This hook, unlike those at the end of a prediction, also runs on a rank that had nothing left to predict.
        """
        if stage != "predict":
            return
        self._flush()
        trainer.strategy.barrier("every rank has written its parts")
        if trainer.is_global_zero:
            of_module = getattr(pl_module, "prediction_uns", dict)()
            n_rows = self._parts.merge(self.overwrite, {ORIGIN: origin_as_uns(self._origin), **of_module})
            _logger.debug("wrote %d embeddings to %s", n_rows, self.output_path)
            add_reductions(self.output_path, self._reductions)
        trainer.strategy.barrier("the parts are merged")

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence, batch_indices: Sequence[int]
    ) -> None:
        """Write predictions that are all in memory, for callers that have collected them."""
        rows = Rows.concatenate([Rows(*_read_prediction(p), np.zeros(0, np.int64)) for p in predictions])
        kwargs = {f"{method}_kwargs": options for method, options in self._reductions.items()}
        write_embedding_dataset(
            self.output_path, rows.features, rows.index, rows.projections, overwrite=self.overwrite, **kwargs
        )

    def _describe(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any] | None:
        """Describe the prediction on the first rank, which reads the whole checkpoint for it."""
        if not trainer.is_global_zero:
            return None
        return prediction_origin(trainer, pl_module, {f"{name}_kwargs": o for name, o in self._reductions.items() if o})

    def _flush(self) -> None:
        if self._pending:
            rows = Rows.concatenate(self._pending)
            self._pending = []
            self._parts.write(rows, self._n_written)
            self._n_written += len(rows)


def _skip(trainer: Trainer, n_rows: int, path: Path) -> None:
    skip = getattr(getattr(trainer, "datamodule", None), "skip_predicted", None)
    if skip is None:
        raise InputError(
            str(path),
            found=f"{n_rows} rows of an interrupted prediction",
            expected="a data module that can continue (skip_predicted)",
            fix="start over with overwrite: true",
        )
    skip(n_rows)
    _logger.info("continuing after %d rows in %s", n_rows, path)


def _positions(loader: Any) -> Iterator[int]:
    """Iterate the dataset positions that a loader will ask for, batch by batch or one by one."""
    sampler: Iterable | None = getattr(loader, "sampler", None)
    for entry in sampler if sampler is not None else ():
        yield from entry if isinstance(entry, list | tuple | np.ndarray) else (entry,)


def _n_samples(loader: Any) -> int:
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return 0


def _read_prediction(prediction: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None, pd.DataFrame]:
    """Take features, projections and index columns out of one prediction."""
    import pandas as pd

    keys = prediction if isinstance(prediction, Mapping) else ()
    key = next((key for key in ("features", "latent") if key in keys), None)
    if key is None or "index" not in keys:
        found = ", ".join(map(str, prediction)) if isinstance(prediction, Mapping) else type(prediction).__name__
        raise InputError(
            "EmbeddingWriter: a prediction of the model",
            found=found,
            expected="a mapping with 'index', and 'features' or 'latent'",
            fix="write the predictions of this model with a callback of another kind, in trainer.callbacks",
        )
    features = _as_array(prediction[key])
    projections = prediction.get("projections")
    index = prediction["index"]
    if isinstance(index, Mapping):
        table = pd.DataFrame({k: v.cpu().numpy() if isinstance(v, torch.Tensor) else v for k, v in index.items()})
    else:
        table = pd.DataFrame([dict(row) for row in index])
    if len(table) != len(features):
        raise ValueError(f"a prediction has {len(features)} rows of {key} and {len(table)} of index")
    return features, None if projections is None else _as_array(projections), table


def _as_array(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().to("cpu", torch.float32).numpy()
    values = np.asarray(values, np.float32)
    return values.reshape(len(values), -1)
