"""Smoothness of several models: computed and written for each, and compared from what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from dynaclr.evaluation.store_configs import METRICS, CompareModelsConfig, EvaluateSmoothnessConfig
from dynaclr.evaluation.stores import say
from viscy_data.errors import InputError, MissingInputError
from viscy_data.files import refuse_existing, replacing
from viscy_utils.cli.yaml_models import read_yaml_model
from viscy_utils.embeddings.reading import read_embeddings
from viscy_utils.evaluation.smoothness import compute_embeddings_smoothness
from viscy_utils.reports.files import json_text, write_text
from viscy_utils.reports.tables import ReportTable, csv_text

__all__ = ["compare_models", "evaluate_smoothness"]

_LOWER_IS_BETTER = {"smoothness_score": True, "dynamic_range": False}


def evaluate_smoothness(path: Path) -> None:
    """Compute the smoothness of the embeddings that a YAML file names, print and write it.

    Raises
    ------
    InputError
        If embeddings have no adjacent frames, or lack the columns of tracks.
    FileExistsError
        If there are results and ``overwrite`` is not set.
    """
    config = read_yaml_model(path, EvaluateSmoothnessConfig)
    folder = Path(config.output_dir)
    targets = [folder / f"{model.label}_smoothness.csv" for model in config.models]
    for target in targets:
        refuse_existing(target, config.overwrite, remedy="choose another output_dir, or set overwrite: true")
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for model, target in zip(config.models, targets, strict=True):
        adata = read_embeddings(model.path)
        missing = [name for name in ("fov_name", "track_id", "t") if name not in adata.obs]
        if missing:
            raise InputError(model.path, field="obs", found=f"no column {', '.join(missing)}")
        try:
            stats, distances, _ = compute_embeddings_smoothness(adata, config.distance_metric)
        except ValueError as err:
            raise InputError(model.path, found=str(err)) from err
        write_text(target, csv_text([stats]))
        records.append({"model": model.label, **stats})
        if config.save_distributions:
            with replacing(folder / f"{model.label}_distributions.npz", overwrite=True) as temporary:
                with temporary.open("wb") as file:
                    np.savez(file, **distances)
        if config.save_plots:
            _draw(distances, model.label, config.distance_metric, folder / f"{model.label}_smoothness.png")
    write_text(folder / "comparison.csv", csv_text(records))
    Console().print(_table(records, METRICS).terminal())
    say(f"wrote {', '.join(target.name for target in targets)} and comparison.csv to {folder}.")
    say("next: dynaclr compare-models, with these files as result_files")


def compare_models(path: Path) -> None:
    """Lay results of ``evaluate-smoothness`` side by side as a YAML file says.

    Raises
    ------
    InputError
        If a file is no such result, or lacks a metric.
    FileExistsError
        If the output exists and ``overwrite`` is not set.
    """
    config = read_yaml_model(path, CompareModelsConfig)
    if config.output_path is not None:
        refuse_existing(
            Path(config.output_path), config.overwrite, remedy="name another output_path, or overwrite: true"
        )
    records = [{"model": entry.label, **_read(entry.path, config.metrics)} for entry in config.result_files]
    table = _table(records, config.metrics)
    Console().print(table.terminal())
    if config.output_path is not None:
        text = {"markdown": table.markdown, "csv": lambda: csv_text(records), "json": lambda: json_text(records)}
        write_text(config.output_path, text[config.output_format]())
        say(f"wrote {config.output_path}")
    say("next: dynaclr evaluate, for what smoothness alone does not tell")


def _read(path: str, metrics: list[str]) -> dict[str, float]:
    if not Path(path).is_file():
        raise MissingInputError(path, found="no such file", expected="a result of evaluate-smoothness")
    try:
        row = pd.read_csv(path, compression=None)
        missing = [name for name in metrics if name not in row]
        values = {} if missing or len(row) != 1 else {name: float(row[name].iloc[0]) for name in metrics}
    except (ValueError, UnicodeDecodeError) as err:
        raise InputError(path, found=f"no table ({err})", expected="a result of evaluate-smoothness") from err
    if not values:
        found = f"no column {', '.join(missing)}" if missing else f"{len(row)} rows"
        raise InputError(path, found=found, expected="one row of the metrics that are asked for")
    return values


def _table(records: list[dict[str, Any]], metrics: list[str]) -> ReportTable:
    best = {}
    for metric, lower in _LOWER_IS_BETTER.items():
        if metric in metrics and len(records) > 1:
            values = [record[metric] for record in records]
            best[metric] = values.index(min(values) if lower else max(values))
    rows = []
    for number, record in enumerate(records):
        marks = {metric: " (best)" for metric, row in best.items() if row == number}
        rows.append((record["model"], *(f"{record[name]:.4g}{marks.get(name, '')}" for name in metrics)))
    words = [name.replace("_", " ") for name in metrics]
    heads = [f"{each}\n{_reading(name)}".strip() for each, name in zip(words, metrics, strict=True)]
    return ReportTable("Smoothness of tracks in the embedding", ("model", *heads), rows)


def _reading(metric: str) -> str:
    if metric not in _LOWER_IS_BETTER:
        return ""
    return "lower is smoother" if _LOWER_IS_BETTER[metric] else "higher is better"


def _draw(distances: dict[str, np.ndarray], label: str, metric: str, path: Path) -> None:
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    edges = np.histogram_bin_edges(np.concatenate(list(distances.values())), bins=60)
    names = {"adjacent_frame": "adjacent frames", "random_frame": "cells of different tracks"}
    for kind, values in distances.items():
        axis.hist(values, edges, density=True, alpha=0.6, label=f"{names[kind]} (n = {len(values):,})")
    axis.set(xlabel=f"{metric} distance", ylabel="density", title=label)
    axis.legend(frameon=False, fontsize="small")
    with replacing(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
