"""Embeddings side by side: probe, mixing and smoothness of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.probe import Score, experiment_separability, linear_probe
from viscy_utils.evaluation.smoothness import temporal_smoothness

__all__ = ["Comparison", "compare", "comparison_table"]


@dataclass(frozen=True)
class Comparison:
    """The figures of one embedding.

    Attributes
    ----------
    name : str
        Name of the embedding.
    probe : Score
        Balanced accuracy of the label on held-out cells, higher is better.
    separability : Score
        Balanced accuracy of the experiment, lower is better.
    smoothness : float
        Distance of adjacent frames over distance of random pairs, lower is smoother.
    n_cells : int
        How many rows the figures are from.
    """

    name: str
    probe: Score
    separability: Score
    smoothness: float
    n_cells: int


def compare(
    embedded: Sequence[Embedded],
    label: str,
    *,
    test_experiments: Sequence[str] = (),
    max_cells: int = 20_000,
    seed: int = 0,
) -> list[Comparison]:
    """Compute the figures of several embeddings of the same experiments.

    Parameters
    ----------
    embedded : sequence of Embedded
        The embeddings to compare.
    label : str
        Column of ``obs`` to probe.
    test_experiments : sequence of str, optional
        The probe is trained on the other experiments and scored on these; without it, cross-validated over FOVs.
    max_cells : int, default 20000
        Probe and mixing use at most so many cells, drawn at random.
    seed : int, default 0
        Of the draws.
    """
    return [_figures(each, label, test_experiments, max_cells, seed) for each in embedded]


def _figures(all_cells: Embedded, label: str, test_experiments: Sequence[str], max_cells: int, seed: int) -> Comparison:
    cells = all_cells.sample(max_cells, seed)
    features, fovs, lineages = cells.features, cells.fovs, cells.lineages
    experiments = cells.obs["experiment"].to_numpy().astype(str)
    test = np.isin(experiments, test_experiments) if test_experiments else None
    return Comparison(
        cells.name,
        linear_probe(features, cells.obs[label].to_numpy(), fovs, lineages, test=test, seed=seed),
        experiment_separability(features, experiments, fovs, lineages, seed=seed),
        temporal_smoothness(all_cells.features, all_cells.tracks, all_cells.obs["t"].to_numpy(), seed=seed),
        len(features),
    )


def comparison_table(comparisons: Sequence[Comparison], label: str) -> Table:
    """Lay the figures out for the terminal, with chance level and interval beside each."""
    table = Table(title="Embeddings side by side (95 % intervals over lineages)")
    table.add_column("embedding")
    table.add_column(f"probe of {label}\nbalanced accuracy, higher is better")
    table.add_column("experiment told from neighbours\nbalanced accuracy, lower is better")
    table.add_column("smoothness\nadjacent / random, lower is smoother")
    for row in comparisons:
        table.add_row(row.name, _cell(row.probe), _cell(row.separability), f"{row.smoothness:.3f}")
    return table


def _cell(score: Score) -> str:
    if np.isnan(score.value):
        return f"not computed: {score.note}"
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}], chance {score.chance:.2f}\n{score.note}"
