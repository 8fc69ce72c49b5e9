"""Annotations and predictions, added to embeddings as columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from dynaclr.evaluation.classifiers import load_with_artifact
from dynaclr.evaluation.store_configs import Annotations, AppendAnnotationsConfig, AppendPredictionsConfig
from dynaclr.evaluation.stores import refuse_replacing, say, write_store
from viscy_data.errors import InputError
from viscy_utils.cli.yaml_models import read_yaml_model
from viscy_utils.embeddings.reading import read_embeddings
from viscy_utils.evaluation.embedded import CELL, canonical_cells
from viscy_utils.evaluation.labels import match_labels, read_label_table
from viscy_utils.evaluation.linear_classifier import predict_with_classifier

__all__ = ["append_annotations", "append_predictions"]


def append_annotations(path: Path) -> None:
    """Add columns of annotation tables to embeddings, as a YAML file says; cells without annotation are NaN.

    Raises
    ------
    InputError
        If a table cannot be used, names no cell, or names a cell that another table names too.
    """
    config = read_yaml_model(path, AppendAnnotationsConfig)
    adata = read_embeddings(config.embeddings_path)
    if not config.overwrite:
        refuse_replacing(adata, config.embeddings_path, config.output_path, obs=config.columns)
    missing = [name for name in CELL if name not in adata.obs]
    if missing:
        raise InputError(config.embeddings_path, field="obs", found=f"no column {', '.join(missing)}")
    tables = pd.concat([_table(entry) for entry in config.annotations], ignore_index=True)
    cells, source = canonical_cells(adata.obs.reset_index(drop=True)), ", ".join(map(_path, config.annotations))
    for column in config.columns:
        values, match = match_labels(cells, tables, column, source=source)
        adata.obs[column] = _column(values, adata.obs.index)
        n_annotated, n_others = (match.rows >= 0).sum(), match.unmatched.sum()
        say(f"{column}: {n_annotated} of {len(cells)} cells annotated; {n_others} rows name no cell")
    place = write_store(adata, config.embeddings_path, config.output_path, config.overwrite)
    say(f"wrote obs {', '.join(map(repr, config.columns))} to {place}.")
    say(f"next: dynaclr evaluate --embeddings {place} --label {config.columns[0]} --output-dir report")


def _path(entry: Annotations) -> str:
    return entry.path


def _table(entry: Annotations) -> pd.DataFrame:
    table = read_label_table(entry.path)
    if entry.experiment is None:
        if "experiment" not in table:
            fix = "say it in the config, `experiment: name` beside `path`"
            raise InputError(entry.path, field="experiment", found=f"columns {', '.join(table)}", fix=fix)
        return table
    if "experiment" in table:
        table = table[table["experiment"].astype(str) == entry.experiment]
    return table.assign(experiment=entry.experiment)


def _column(values: np.ndarray, index: pd.Index) -> pd.Series:
    column = pd.Series(values, index=index)
    if pd.api.types.is_numeric_dtype(column):
        return column
    text = column.astype(object).where(column.notna(), None).map(str, na_action="ignore")
    return pd.Series(pd.Categorical(text), index=index)


def append_predictions(path: Path) -> None:
    """Add the predictions of several classifiers to embeddings, as a YAML file says.

    Raises
    ------
    InputError
        If a classifier does not fit, or two tell the same task.
    """
    config = read_yaml_model(path, AppendPredictionsConfig)
    adata = read_embeddings(config.embeddings_path)
    tasks: dict[str, Path] = {}
    for file in config.files():
        pipeline, metadata = load_with_artifact(file, adata.uns)
        if pipeline.task in tasks:
            found = f"a classifier of {pipeline.task}, as {tasks[pipeline.task]} is"
            raise InputError(str(file), found=found, fix="keep one of them")
        tasks[pipeline.task] = file
        if not config.overwrite:
            own = [f"predicted_{pipeline.task}"]
            refuse_replacing(adata, config.embeddings_path, config.output_path, obs=own)
        try:
            predict_with_classifier(adata, pipeline, pipeline.task, metadata)
        except ValueError as err:
            raise InputError(str(file), found=str(err)) from err
    place = write_store(adata, config.embeddings_path, config.output_path, config.overwrite)
    say(f"wrote obs {', '.join(repr(f'predicted_{task}') for task in tasks)} to {place}.")
    say(f"next: dynaclr plot-embeddings, with color_by: [{', '.join(f'predicted_{task}' for task in tasks)}]")
