"""Statistics of batch normalisation of each experiment, for its own prediction (AdaBN).

With experiment-aware batches batch normalisation takes out in training what an experiment adds to all of its cells, but
not in a prediction, which uses one running average of all experiments. Here the statistics of a prediction are
estimated anew per experiment, on cells balanced over conditions: what all cells of a sample share is taken out, so a
sample of infected cells alone would lose the infection. A batch normalisation more, behind the features, does the same
for an encoder without any (ConvNeXt), and for what the others leave.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
import zarr
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from dynaclr.turns import turns
from viscy_data.errors import InputError
from viscy_data.files import missing_path
from viscy_models.batch_statistics import FeatureNorm, estimate_batch_statistics, lent_batch_statistics

if TYPE_CHECKING:
    from dynaclr.datamodule import MultiExperimentDataModule
    from dynaclr.dataset import MultiExperimentTripletDataset

__all__ = [
    "STATISTICS",
    "BatchStatistics",
    "Embed",
    "InputOf",
    "Stage",
    "Statistics",
    "balanced_rows",
    "cell_batches",
    "embed_by_experiment",
    "require_width",
]

STATISTICS = "batch_statistics"
"""Key of ``uns`` of embeddings that were made with statistics of each experiment."""

Statistics = dict[str, dict[str, Tensor]]
"""By experiment, as `viscy_models.batch_statistics.estimate_batch_statistics` returns them."""

Stage = Literal["predict", "val"]

Embed = Callable[[Tensor], tuple[Tensor, ...]]
"""From images (B, C, Z, Y, X) to features (B, F) and more."""

InputOf = Callable[[dict[str, Any]], Tensor]
"""From a batch to what a network takes of it."""

_BATCH = 128


@dataclass(frozen=True)
class BatchStatistics:
    """Where the statistics of batch normalisation of each predicted experiment come from.

    Parameters
    ----------
    n_cells : int, default 2048
        Cells of each experiment, equally many of each condition; where a condition has fewer, they come several times.
    source : str, optional
        Embeddings of an earlier prediction of the same model: experiments that it has statistics of take these, so that
        further plates of an experiment come into the same space, and only others are estimated.

    Raises
    ------
    ValueError
        For fewer than two cells.
    """

    n_cells: int = 2048
    source: str | None = None

    def __post_init__(self) -> None:
        if self.n_cells < 2:
            raise ValueError(f"batch_statistics.n_cells: found {self.n_cells}, expected at least 2, such as 2048")

    def record(self) -> dict[str, Any]:
        """Say in plain values what decides the statistics, but for model and data."""
        stored = {name: _as_lists(own) for name, own in self.stored().items()}
        return {"n_cells": self.n_cells, "source": stored}

    def stored(self) -> Statistics:
        """Read the statistics of `source`; empty without one.

        Raises
        ------
        InputError
            If there are no such embeddings, or they have none.
        """
        return {} if self.source is None else _read(Path(self.source))

    def of(
        self,
        network: nn.Module,
        data: MultiExperimentDataModule,
        stage: Stage = "predict",
        turned: bool = False,
        input_of: InputOf = itemgetter("anchor"),
    ) -> Statistics:
        """Return the statistics of every experiment that a data module predicts, or validates on.

        They are a function of the network and the cells: any rank, and a prediction that goes on, finds the same.

        Parameters
        ----------
        network : nn.Module
            From images to features (B, F) and more, with F in the attribute ``num_features``.
        data : MultiExperimentDataModule
            Set up for the stage.
        stage : {"predict", "val"}
        turned : bool, default False
            Of all `turns` of the cells, for a prediction that is the mean over these.
        input_of : callable
            From a batch to what the network takes; the images of the anchors by default.

        Raises
        ------
        InputError
            If the experiments are not known, an experiment has cells of one condition alone, or the network does not
            say how many features it has.
        """
        dataset = _dataset(data, stage)
        (experiments, names), (conditions, labels) = (_numbered(dataset, name) for name in ("experiment", "condition"))
        known, device, network = self.stored(), next(network.parameters()).device, _normalizing(network)
        statistics: Statistics = {}
        for code, name in enumerate(names):
            rows = np.flatnonzero(experiments == code)
            if name in known and len(rows):
                statistics[name] = {key: value.to(device) for key, value in known[name].items()}
            elif len(rows):
                own = conditions[rows]
                counts = {label: np.count_nonzero(own == number) for number, label in enumerate(labels)}
                _check_composition(name, {label: n for label, n in counts.items() if n}, self.n_cells)
                chosen = rows[balanced_rows(own, self.n_cells, data.seed)]
                batches = map(input_of, cell_batches(data, dataset, chosen, device))
                batches = chain.from_iterable(map(turns, batches)) if turned else batches
                statistics[name] = estimate_batch_statistics(network, batches)
        return statistics

    @staticmethod
    def as_uns(statistics: Statistics) -> dict[str, Any]:
        """Bring statistics into the form that AnnData stores: names as JSON, and per layer an array (E, channels)."""
        names = sorted(statistics)
        layers = {
            key: np.stack([statistics[name][key].cpu().numpy() for name in names]) for key in statistics[names[0]]
        }
        return {"experiments": json.dumps(names), "layers": layers}


def balanced_rows(conditions: np.ndarray, n_cells: int, seed: int) -> np.ndarray:
    """Draw rows, equally many of each condition, in mixed order.

    Rows are drawn without replacement; a condition that has too few comes several times.

    Parameters
    ----------
    conditions : ndarray, shape (N,)
        Names, or numbers in the order of names.
    n_cells : int
        Rounded up to a multiple of the number of conditions.
    seed : int

    Returns
    -------
    ndarray of int64
    """
    rng = np.random.default_rng(seed)
    names = np.unique(conditions)
    own = -(-n_cells // len(names))
    drawn = [np.resize(rng.permutation(np.flatnonzero(conditions == name)), own) for name in names]
    return rng.permutation(np.concatenate(drawn))


def cell_batches(
    data: MultiExperimentDataModule, dataset: MultiExperimentTripletDataset, items: np.ndarray, device: torch.device
) -> Iterator[dict[str, Any]]:
    """Read cells as the encoder sees them, in batches of one size; what is left over is not read.

    Parameters
    ----------
    data : MultiExperimentDataModule
        Prepares the images.
    dataset : MultiExperimentTripletDataset
        One of those of the data module.
    items : ndarray of int64, shape (N,)
        Positions in the dataset.
    device : torch.device

    Yields
    ------
    dict
        As a loader's batches after their transforms: ``anchor`` (B, C, Z, Y, X), ``observation`` (B,) ...
    """
    size = min(_BATCH, len(items))
    for start in range(0, len(items) - size + 1, size):
        batch = data.on_before_batch_transfer(dataset[items[start : start + size].tolist()], 0)
        yield data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)


def embed_by_experiment(
    network: nn.Module, images: Tensor, experiments: np.ndarray, statistics: Mapping[str, Mapping[str, Tensor]]
) -> tuple[Tensor, ...]:
    """Embed a batch, each cell by the statistics of its experiment.

    Parameters
    ----------
    network : nn.Module
        From images to a tuple of tensors (B, ...).
    images : Tensor, shape (B, C, Z, Y, X)
    experiments : ndarray of str, shape (B,)
    statistics : mapping
        Of every one of them.
    """
    order, parts, network = [], [], _normalizing(network)
    for name in np.unique(experiments):
        rows = torch.from_numpy(np.flatnonzero(experiments == name)).to(images.device)
        with lent_batch_statistics(network, statistics[str(name)]):
            parts.append(network(images[rows]))
        order.append(rows)
    back = torch.argsort(torch.cat(order))
    return tuple(torch.cat(each)[back] for each in zip(*parts, strict=True))


def require_width(network: nn.Module) -> None:
    """Refuse a network whose features cannot be normalised, as it does not say how many there are.

    Raises
    ------
    InputError
    """
    if not hasattr(network, "num_features"):
        raise InputError(
            type(network).__name__,
            field="batch_statistics",
            found="an encoder without the attribute num_features, the number of its features",
            expected="an encoder with it, such as viscy_models.ContrastiveEncoder",
            fix="leave the option out, or add the attribute",
        )


def _normalizing(network: nn.Module) -> nn.Module:
    """Return a network that normalises its features, too."""
    require_width(network)
    return FeatureNorm(network)


def _check_composition(name: str, counts: Mapping[str, int], n_cells: int) -> None:
    if len(counts) < 2:
        raise InputError(
            name,
            field="batch_statistics",
            found=f"cells of the condition {next(iter(counts))!r} alone",
            expected="cells of two conditions or more, since what all cells of a sample share is taken out",
            fix="predict wells of its other conditions too, or name embeddings with its statistics as source",
        )
    fewest = min(counts.values()) * len(counts)
    if fewest < n_cells:
        rank_zero_warn(
            f"{name}: batch statistics are of {fewest} different cells balanced over conditions, fewer than the "
            f"{n_cells} of batch_statistics.n_cells, so some come several times"
        )


def _dataset(data: MultiExperimentDataModule, stage: Stage) -> MultiExperimentTripletDataset:
    dataset = getattr(data, f"{stage}_dataset", None)
    if not hasattr(dataset, "index"):
        raise InputError(
            type(data).__name__,
            field="batch_statistics",
            found="a data module that does not say which experiment a cell is of",
            expected="dynaclr.datamodule.MultiExperimentDataModule",
            fix="leave the option out",
        )
    return dataset


def _numbered(dataset: MultiExperimentTripletDataset, column: str) -> tuple[np.ndarray, list[str]]:
    """Return a column for each item (anchors, or all cells in a prediction) as numbers, and the sorted names of these.

    There may be a hundred million cells: a byte each, not a text.
    """
    values = pd.Categorical(dataset.index.tracks[column])
    names = values.categories.to_numpy().astype(str)
    order = np.argsort(names)
    numbers = np.argsort(order).astype(values.codes.dtype)[values.codes]
    return numbers[dataset.index.anchor_rows] if dataset.fit else numbers, names[order].tolist()


def _as_lists(own: Mapping[str, Tensor]) -> dict[str, list[float]]:
    return {key: value.tolist() for key, value in own.items()}


def _read(path: Path) -> Statistics:
    from viscy_utils.embeddings.store import import_anndata

    if not path.exists():
        raise missing_path(path, field="batch_statistics.source", expected="embeddings of an earlier prediction")
    try:
        uns = zarr.open_group(path, mode="r", use_consolidated=False).get("uns")
    except FileNotFoundError:  # another folder
        uns = None
    if uns is None or STATISTICS not in uns:
        raise InputError(
            str(path),
            field="batch_statistics.source",
            found=f"no {STATISTICS} in uns",
            expected="embeddings that were predicted with batch_statistics",
        )
    stored = import_anndata().io.read_elem(uns[STATISTICS])
    layers = {key: torch.from_numpy(np.asarray(values)) for key, values in stored["layers"].items()}
    return {
        name: {key: values[row] for key, values in layers.items()}
        for row, name in enumerate(json.loads(str(stored["experiments"])))
    }
