"""Statistics of batch normalisation of each experiment, for its own prediction (AdaBN).

With experiment-aware batches batch normalisation takes out in training what an experiment adds to all of its cells, but
not in a prediction, which uses one running average of all experiments. Here the statistics of a prediction are
estimated anew per experiment, on cells balanced over conditions: what all cells of a sample share is taken out, so a
sample of infected cells alone would lose the infection.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor, nn

from dynaclr.datamodule import MultiExperimentDataModule
from viscy_models.batch_statistics import estimate_batch_statistics

__all__ = ["balanced_rows", "estimate_per_group"]


def balanced_rows(conditions: np.ndarray, n_cells: int, seed: int) -> np.ndarray:
    """Draw rows, equally many of each condition, in mixed order.

    Rows are drawn without replacement; a condition that has too few comes several times.

    Parameters
    ----------
    conditions : ndarray of str, shape (N,)
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


def estimate_per_group(
    network: nn.Module,
    data: MultiExperimentDataModule,
    *,
    n_cells: int = 2048,
    batch_size: int = 128,
    seed: int = 0,
) -> dict[str, dict[str, Tensor]]:
    """Estimate the statistics of every experiment that a data module predicts."""
    tracks = data.predict_dataset.index.tracks
    experiments, conditions = (tracks[name].to_numpy().astype(str) for name in ("experiment", "condition"))
    statistics = {}
    for name in np.unique(experiments):
        rows = np.flatnonzero(experiments == name)
        chosen = rows[balanced_rows(conditions[rows], n_cells, seed)]
        statistics[str(name)] = estimate_batch_statistics(network, _images(data, chosen, batch_size))
    return statistics


def _images(data: MultiExperimentDataModule, rows: np.ndarray, batch_size: int) -> Iterator[Tensor]:
    for start in range(0, len(rows) - batch_size + 1, batch_size):
        batch = data.predict_dataset[rows[start : start + batch_size].tolist()]
        yield data.pipeline(batch, training=False)["anchor"]
