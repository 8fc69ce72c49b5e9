"""Predictions of a classifier as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from viscy_data.files import refuse_existing, replacing
from viscy_data.typing import INDEX_COLUMNS

__all__ = ["ClassificationPredictionWriter"]


class ClassificationPredictionWriter(BasePredictionWriter):
    """Write the predictions of all cells to a CSV file at the end.

    The columns are those of the tracking index that the data have, further columns of the prediction, ``label`` and
    ``prediction``. With several processes each writes its part, and the first one puts them together.

    Parameters
    ----------
    output_path : Path
        The file.
    overwrite : bool, default False
        Replace an existing file, once the new one is complete.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is False.
    """

    def __init__(self, output_path: Path, *, overwrite: bool = False) -> None:
        super().__init__("epoch")
        self.output_path, self.overwrite = Path(output_path), overwrite
        refuse_existing(self.output_path, overwrite, remedy="choose another output_path or set overwrite: true")

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence, batch_indices: Sequence | None
    ) -> None:
        """Write the predictions of an epoch, of one data loader or several."""
        part = self._part(trainer.global_rank)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        tables = [_table(prediction) for prediction in _flat(predictions)]
        if tables:
            pd.concat(tables, ignore_index=True).to_csv(part, index=False)
        trainer.strategy.barrier("every rank has written its predictions")
        if trainer.is_global_zero:
            self._merge([self._part(rank) for rank in range(trainer.world_size)])

    def _part(self, rank: int) -> Path:
        return self.output_path.with_name(f".{self.output_path.name}.part{rank}")

    def _merge(self, parts: Sequence[Path]) -> None:
        parts = [part for part in parts if part.exists()]
        if not parts:
            return
        # As text, so that every number and name stays as it was written.
        tables = [pd.read_csv(part, dtype=str, keep_default_na=False) for part in parts]
        with replacing(self.output_path, self.overwrite) as temporary:
            pd.concat(tables, ignore_index=True).to_csv(temporary, index=False)
        for part in parts:
            part.unlink()


def _flat(predictions: Sequence) -> list[Mapping[str, Any]]:
    """Return the predictions of all batches; several data loaders give a list each."""
    nested = [[entry] if isinstance(entry, Mapping) else list(entry) for entry in predictions]
    return [prediction for entries in nested for prediction in entries]


def _table(prediction: Mapping[str, Any]) -> pd.DataFrame:
    columns = {name: _flatten(values) for name, values in prediction.items()}
    known = [name for name in INDEX_COLUMNS if name in columns]
    last = [name for name in ("label", "prediction") if name in columns]
    others = [name for name in columns if name not in (*known, *last)]
    return pd.DataFrame({name: columns[name] for name in (*known, *others, *last)})


def _flatten(values: Any) -> Any:
    if not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu().flatten()
    return (values.float() if values.is_floating_point() else values).numpy()
