"""What an embedding is worth while it is trained: figures of held-out cells at each validation.

>>> trainer = Trainer(callbacks=[OnlineEvaluation(label="condition")])  # doctest: +SKIP
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from viscy_data.distributed import World
from viscy_data.optional import require
from viscy_utils.evaluation.geometry import alignment, effective_rank, spread, uniformity
from viscy_utils.randomness import fixed_randomness

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OnlineEvaluation"]

_MOST_UNIFORMITY = 2000
_COLLAPSED_RANK = 2.0
_COLLAPSED_SPREAD = 1e-4


class _Part(NamedTuple):
    """What is kept of a batch: its number over all processes, arrays of a row per cell, and the cells' records."""

    number: int
    cells: dict[str, np.ndarray]
    records: Sequence[Mapping[str, Any]]


class OnlineEvaluation(Callback):
    """Log at each validation what the embedding of held-out cells is worth, and warn when it collapses.

    ``online/knn_accuracy``: share of the cells whose label their ``k`` nearest cells of other lineages tell by vote,
    and ``online/knn_chance``, the share of the most frequent label; ``online/ilisi``: how well experiments are mixed,
    0 to 1 (`viscy_utils.evaluation.mixing.lisi`); ``online/effective_rank`` of the features; ``online/alignment`` and
    ``online/uniformity`` of the projections (`viscy_utils.evaluation.geometry`).

    Training is the same with and without it: cells of the validation batches are embedded once more, without gradients,
    and random state is put back.

    Parameters
    ----------
    label : str, default "condition"
        Column of the records of the validation dataset. Cells without a label, or "unknown", do not vote.
    k : int, default 20
        Neighbours that vote.
    max_cells : int, default 2000
        About so many cells are looked at, of batches spread over the validation; a second of computing.
    every_n_epochs : int, default 1

    Notes
    -----
    For modules whose ``predict_step`` returns ``features`` and ``projections`` of ``batch["anchor"]``, such as
    `dynaclr.engine.ContrastiveModule`. Labels come from the dataset's ``records`` of ``batch["observation"]``; without
    them, a warning says that only figures without labels are logged. Several processes embed a share of the cells each,
    and log the figures that one process would. Needs the extra ``eval``.
    """

    def __init__(self, label: str = "condition", k: int = 20, max_cells: int = 2000, every_n_epochs: int = 1) -> None:
        for name, value in (("k", k), ("max_cells", max_cells), ("every_n_epochs", every_n_epochs)):
            if value < 1:
                raise ValueError(f"{name}: found {value}, expected at least 1")
        self.label, self.k, self.max_cells, self.every_n_epochs = label, k, max_cells, every_n_epochs
        self._parts: list[_Part] = []
        self._n_chosen = 0
        self._has_warned: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out at the beginning whether what is needed is there."""
        if stage == "fit":
            for library in ("pandas", "sklearn"):
                require(library, extra="eval", package="viscy-utils")

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the cells of the last epoch."""
        self._parts, self._n_chosen = [], 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Embed the cells of some batches."""
        number = batch_idx * trainer.world_size + trainer.global_rank  # batches are dealt out in turn
        if dataloader_idx or not self._is_due(trainer) or not self._is_chosen(trainer, batch, number):
            return
        with (
            torch.no_grad(),
            fixed_randomness(0, pl_module.device),
            trainer.precision_plugin.forward_context(),
        ):
            cells = _embedded(pl_module, batch["anchor"], batch_idx)
            if "positive" in batch:
                cells["positive"] = _embedded(pl_module, batch["positive"], batch_idx)["projections"]
        if "observation" in batch:
            cells["observation"] = np.asarray(batch["observation"].cpu())
        self._parts.append(_Part(number, cells, self._records_of(trainer, cells)))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the figures of the cells of all processes in the first, and log them in all."""
        if not self._is_due(trainer):
            return
        parts, self._parts = _of_all_processes(self._parts), []
        figures = self._figures(trainer, parts) if parts else {}
        if trainer.world_size > 1:
            figures = trainer.strategy.broadcast(figures)
        named = {f"online/{name}": value for name, value in figures.items()}
        pl_module.log_dict(named, on_step=False, on_epoch=True, sync_dist=trainer.world_size > 1, batch_size=1)

    def _figures(self, trainer: Trainer, parts: Sequence[_Part]) -> dict[str, float]:
        cells, records = _joined(parts)
        features = cells["features"]
        if len(features) < 3 or not np.isfinite(features).all():
            self._warn("few", "OnlineEvaluation: fewer than 3 held-out cells, or features that are not finite")
            return {}
        figures = _without_labels(cells)
        if len(records) == len(features):
            figures |= self._with_labels(features, records)
        self._warn_of_collapse(trainer, features, figures["effective_rank"])
        return figures

    def _is_due(self, trainer: Trainer) -> bool:
        return trainer.current_epoch % self.every_n_epochs == 0 and not trainer.sanity_checking

    def _is_chosen(self, trainer: Trainer, batch: Mapping[str, Any], number: int) -> bool:
        """Tell whether a batch is one of those spread evenly over the validation."""
        n_batches = trainer.num_val_batches[0] * trainer.world_size
        if not np.isfinite(n_batches):
            return sum(len(part.cells["features"]) for part in self._parts) * trainer.world_size < self.max_cells
        if number < trainer.world_size:
            self._n_chosen = min(int(n_batches), -(-self.max_cells // max(1, len(batch["anchor"]))))
        return (number + 1) * self._n_chosen // n_batches > number * self._n_chosen // n_batches

    def _records_of(self, trainer: Trainer, cells: Mapping[str, np.ndarray]) -> Sequence[Mapping[str, Any]]:
        loaders = trainer.val_dataloaders
        loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
        records = getattr(getattr(loader, "dataset", None), "records", None)
        if records is None or "observation" not in cells:
            self._warn("records", "OnlineEvaluation: batches do not say which cells they are of; no label is looked at")
            return []
        return records(cells["observation"])

    def _with_labels(self, features: np.ndarray, records: pd.DataFrame) -> dict[str, float]:
        from viscy_utils.evaluation.labels import is_missing, is_unknown
        from viscy_utils.evaluation.mixing import lisi

        lineages = _lineages(records)
        figures = {}
        if "experiment" in records:
            figures["ilisi"] = lisi(features, records["experiment"].astype(str).to_numpy(), lineages).value
        if self.label not in records:
            known = ", ".join(map(str, records.columns))
            self._warn("label", f"OnlineEvaluation: no column {self.label!r} among {known}; set label")
        else:
            kept = ~(is_missing(records[self.label]) | is_unknown(records[self.label]))
            labels = records[self.label].astype(str).to_numpy()[kept]
            figures |= self._neighbors(features[kept], labels, lineages[kept])
        return {name: value for name, value in figures.items() if np.isfinite(value)}

    def _neighbors(self, features: np.ndarray, labels: np.ndarray, lineages: np.ndarray) -> dict[str, float]:
        from viscy_utils.evaluation.neighborhoods import nearest_rows

        classes, codes = np.unique(labels, return_inverse=True)
        counts = np.bincount(np.unique(lineages, return_inverse=True)[1]) if len(lineages) else np.zeros(1, int)
        if len(classes) < 2 or len(codes) - counts.max() < self.k:
            self._warn("votes", f"OnlineEvaluation: too few labels of {self.label!r} or cells for {self.k} neighbours")
            return {}
        rows, _ = nearest_rows(features, np.arange(len(codes)), self.k, groups=lineages, metric="cosine")
        votes = np.stack([(codes[rows] == each).sum(axis=1) for each in range(len(classes))], axis=1)
        accuracy = float(np.mean(votes.argmax(axis=1) == codes))
        return {"knn_accuracy": accuracy, "knn_chance": float(np.bincount(codes).max() / len(codes))}

    def _warn_of_collapse(self, trainer: Trainer, features: np.ndarray, rank: float) -> None:
        around = spread(features)
        if rank >= _COLLAPSED_RANK and around >= _COLLAPSED_SPREAD:
            return
        warnings.warn(
            f"epoch {trainer.current_epoch}: the embedding has collapsed. {len(features)} held-out cells use "
            f"{rank:.1f} of {features.shape[1]} directions, and {around:.1e} of their length tells them apart. "
            "Lower the learning rate, check that augmented pairs still differ from other cells, or use a loss that "
            "pushes cells apart (NT-Xent, VICReg) with larger batches.",
            stacklevel=2,
        )

    def _warn(self, key: str, message: str) -> None:
        if key not in self._has_warned:
            self._has_warned.add(key)
            rank_zero_warn(message, stacklevel=4)


def _of_all_processes(parts: list[_Part]) -> list[_Part]:
    """Return the parts of all processes in the order of their batches, in the first process; nothing in the others."""
    world = World.detect()
    if world.size == 1:
        return parts
    gathered = [None] * world.size if world.rank == 0 else None
    torch.distributed.gather_object(parts, gathered)
    return sorted((part for own in gathered or () for part in own), key=lambda part: part.number)


def _joined(parts: Sequence[_Part]) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Join the parts of batches; cells that come again, so that processes have batches alike in number, count once."""
    cells = {name: np.concatenate([part.cells[name] for part in parts]) for name in parts[0].cells}
    pd = require("pandas", extra="eval", package="viscy-utils")
    records = pd.DataFrame([record for part in parts for record in part.records])
    if "observation" in cells:
        rows = np.sort(np.unique(cells["observation"], return_index=True)[1])
        cells = {name: values[rows] for name, values in cells.items()}
        records = records.iloc[rows] if len(records) else records
    return cells, records


def _embedded(module: LightningModule, images: torch.Tensor, number: int) -> dict[str, np.ndarray]:
    found = module.predict_step({"anchor": images, "index": None}, number)
    return {name: found[name].float().cpu().numpy() for name in ("features", "projections")}


def _without_labels(cells: Mapping[str, np.ndarray]) -> dict[str, float]:
    figures = {
        "effective_rank": effective_rank(cells["features"]),
        "uniformity": uniformity(cells["projections"][:_MOST_UNIFORMITY]),
    }
    if "positive" in cells:
        figures["alignment"] = alignment(cells["projections"], cells["positive"])
    return figures


def _lineages(records: pd.DataFrame) -> np.ndarray:
    """Return the number of the lineage, or else of the track, of each record."""
    last = "lineage_id" if "lineage_id" in records else "track_id"
    columns = [name for name in ("experiment", "fov_name", last) if name in records]
    if not columns:
        return np.arange(len(records))
    return records[columns].astype(str).groupby(columns).ngroup().to_numpy()
