"""Embeddings side by side: probe, mixing and smoothness in one table, and one figure to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from dynaclr.config import load_data_module
from dynaclr.evaluation.embedded import Embedded, add_labels, read_embedded
from dynaclr.evaluation.figure import draw_report
from dynaclr.evaluation.pixels import pixel_pca
from dynaclr.evaluation.probe import Score, experiment_separability, linear_probe
from dynaclr.evaluation.smoothness import temporal_smoothness
from dynaclr.pair_page import PairImages
from viscy_data.errors import InputError

__all__ = ["Comparison", "compare", "comparison_table", "evaluate_embeddings"]


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


def evaluate_embeddings(
    embeddings: Mapping[str, str | Path],
    label: str,
    output_dir: Path,
    *,
    pixel_configs: Sequence[Path] = (),
    labels: Sequence[Path] = (),
    test_experiments: Sequence[str] = (),
    pairs: PairImages | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> list[Comparison]:
    """Read embeddings, compute their figures, print the table, write ``report.json`` and ``report.png``.

    Parameters
    ----------
    embeddings : mapping of str to path
        Stores to compare, by name.
    label : str
        Column to probe, of the embeddings or of ``labels``.
    output_dir : Path
        Made when missing.
    pixel_configs : sequence of Path, optional
        Configs of the prediction; PCA of the pixels of its data is added to the comparison.
    labels : sequence of Path, optional
        CSVs with ``experiment, fov_name, track_id, t`` and the label.
    test_experiments : sequence of str, optional
        As in :func:`compare`.
    pairs : PairImages, optional
        Anchors and positives to show below the embeddings.
    overwrite : bool, default False
        Replace an existing report.
    seed : int, default 0
        Of every draw.

    Raises
    ------
    InputError
        If an input is missing or does not fit.
    FileExistsError
        If there is a report and ``overwrite`` is not set.
    """
    targets = {name: output_dir / name for name in ("report.json", "report.png")}
    existing = [str(path) for path in targets.values() if path.exists()]
    if existing and not overwrite:
        raise FileExistsError(f"{', '.join(existing)} exists: choose another folder or set overwrite")
    embedded = [read_embedded(name, path) for name, path in embeddings.items()]
    if pixel_configs:
        data = load_data_module(pixel_configs)
        embedded += [pixel_pca(data, seed=seed, raw=raw) for raw in (True, False)]
    if labels:
        table = pd.concat([pd.read_csv(path) for path in labels], ignore_index=True)
        source = ", ".join(map(str, labels))
        embedded = [add_labels(each, table, label, source=source) for each in embedded]
    _check(embedded, label, test_experiments)
    comparisons = compare(embedded, label, test_experiments=test_experiments, seed=seed)
    Console().print(comparison_table(comparisons, label))
    output_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(row) for row in comparisons], indent=2).replace("NaN", "null")
    targets["report.json"].write_text(text + "\n", encoding="utf8")
    draw_report(embedded, label, pairs, seed=seed).savefig(targets["report.png"], dpi=120)
    return comparisons


def _check(embedded: Sequence[Embedded], label: str, test_experiments: Sequence[str]) -> None:
    """Find a label or an experiment that is not there before anything is computed."""
    for each in embedded:
        if label not in each.obs:
            raise InputError(
                each.name,
                field="label",
                found=label,
                expected=f"one of {', '.join(map(str, each.obs.columns))}",
                fix="name a column of obs, or give a table with --labels",
            )
        known = set(each.obs["experiment"].astype(str))
        unknown = [name for name in test_experiments if name not in known]
        if unknown:
            raise InputError(
                each.name, field="test_experiments", found=", ".join(unknown), expected=f"of {', '.join(sorted(known))}"
            )
