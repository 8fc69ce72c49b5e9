"""Embeddings side by side: probe, mixing and smoothness in one table, and one figure to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from rich.console import Console

from dynaclr.config import load_data_module
from dynaclr.evaluation.figure import draw_report
from dynaclr.evaluation.pixels import pixel_pca
from dynaclr.pair_page import PairImages
from viscy_data.errors import InputError
from viscy_utils.evaluation.comparison import Comparison, compare, comparison_table
from viscy_utils.evaluation.embedded import Embedded, add_labels, read_embedded

__all__ = ["Comparison", "compare", "comparison_table", "evaluate_embeddings"]


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
