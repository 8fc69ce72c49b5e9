"""Training and application of linear classifiers as their configurations say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from dynaclr.evaluation.stores import say, write_store
from viscy_data.errors import InputError
from viscy_data.files import refuse_existing
from viscy_utils.cli.yaml_models import read_yaml_model
from viscy_utils.embeddings.reading import read_embeddings
from viscy_utils.evaluation.linear_classifier import (
    LinearClassifierPipeline,
    load_and_combine_datasets,
    load_pipeline_from_wandb,
    predict_with_classifier,
    save_pipeline_to_wandb,
    train_linear_classifier,
)
from viscy_utils.evaluation.linear_classifier_config import (
    LinearClassifierInferenceConfig,
    LinearClassifierTrainConfig,
)
from viscy_utils.evaluation.linear_classifier_file import hash_store, load_classifier, save_classifier
from viscy_utils.evaluation.origins import encoder_note, weights_of
from viscy_utils.reports.numbers import number
from viscy_utils.reports.tables import ReportTable

__all__ = ["apply_from_config", "load_with_artifact", "train_from_config"]

_PACKAGES = ("viscy-utils", "scikit-learn", "numpy")


def train_from_config(path: Path, *, overwrite: bool = False) -> dict[str, float]:
    """Train a classifier, print its metrics, and save it.

    Parameters
    ----------
    path : Path
        YAML of `viscy_utils.evaluation.linear_classifier_config.LinearClassifierTrainConfig`.
    overwrite : bool, default False
        Replace an existing classifier.
    """
    config = read_yaml_model(path, LinearClassifierTrainConfig)
    if config.output_path is not None:
        refuse_existing(config.output_path, overwrite, remedy="choose another output_path or add --overwrite")
    params = {"max_iter": config.max_iter, "class_weight": config.class_weight, "solver": config.solver}
    options = config.model_dump(
        include={"use_scaling", "use_pca", "n_pca_components", "split_train_data", "random_seed", "calibrate"}
    )
    try:
        cells = load_and_combine_datasets(config.train_datasets, config.task)
        pipeline, metrics = train_linear_classifier(cells, config.task, classifier_params=params, **options)
    except InputError:
        raise
    except ValueError as err:
        raise InputError(str(path), field="train_datasets", found=str(err)) from err
    Console(soft_wrap=True).print(_metrics_table(pipeline, metrics).terminal())
    if config.output_path is not None:
        save_classifier(pipeline, config.output_path, _origin(config, metrics), overwrite)
        say(f"wrote {config.output_path}")
        say(f"next: dynaclr apply-linear-classifier, with classifier_path: {config.output_path}")
    if config.wandb_project is not None:
        where = {"wandb_entity": config.wandb_entity, "tags": config.wandb_tags}
        name = save_pipeline_to_wandb(pipeline, metrics, config.model_dump(), config.wandb_project, **where)
        say(f"Saved {name} to {config.wandb_project}.")
    return metrics


def _origin(config: LinearClassifierTrainConfig, metrics: dict[str, float]) -> dict[str, Any]:
    """Say what a classifier was trained on: hashes of embeddings and annotations, what is known of the encoder."""
    data = []
    for dataset in config.train_datasets:
        own = {"embeddings": dataset["embeddings"], "embeddings_sha256": hash_store(dataset["embeddings"])}
        own |= {"annotations": dataset["annotations"], "annotations_sha256": _hash_file(dataset["annotations"])}
        uns = read_embeddings(dataset["embeddings"]).uns
        own |= {"encoder": {key: str(value) for key, value in uns.items()}, "weights": weights_of(uns)}
        data.append(own)
    versions = {name: version(name) for name in _PACKAGES}
    return {"metrics": metrics, "config": config.model_dump(), "data": data, "versions": versions}


def _hash_file(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _metrics_table(pipeline: LinearClassifierPipeline, metrics: dict[str, float]) -> ReportTable:
    config = pipeline.config
    sides = {"train": f"training\n{config['n_train']} cells", "val": f"validation\n{config['n_validation']} cells"}
    names = dict.fromkeys(name.split("_", 1)[1] for name in metrics)
    rows = [(name.replace("_", " "), *(number(metrics.get(f"{side}_{name}")) for side in sides)) for name in names]
    title = (
        f"{pipeline.task}: split by {config['split_by']}, {config['n_without_label']} cells without a label left out"
    )
    return ReportTable(title, ("metric", *sides.values()), rows)


def apply_from_config(path: Path) -> None:
    """Predict the cells of a store, and write it.

    Parameters
    ----------
    path : Path
        YAML of `viscy_utils.evaluation.linear_classifier_config.LinearClassifierInferenceConfig`.
    """
    config = read_yaml_model(path, LinearClassifierInferenceConfig)
    adata = read_embeddings(config.embeddings_path)
    pipeline, metadata = _load(config, adata.uns)
    key = f"predicted_{pipeline.task}"
    if key in adata.obs and not config.overwrite:
        fix = "set overwrite: true to replace them"
        raise InputError(config.embeddings_path, field=f"obs.{key}", found="earlier predictions", fix=fix)
    try:
        predict_with_classifier(adata, pipeline, pipeline.task, metadata, config.include_wells)
    except ValueError as err:
        raise InputError(config.embeddings_path, found=str(err)) from err
    output = write_store(adata, config.embeddings_path, config.output_path, config.overwrite)
    Console(soft_wrap=True).print(_counts_table(adata.obs[key], pipeline.task).terminal())
    say(f"wrote {output}: obs {key!r}, obsm '{key}_proba', uns '{key}_classes'")
    say(f"next: dynaclr evaluate --embeddings {output} --label {key} --output-dir report")


def _load(
    config: LinearClassifierInferenceConfig, uns: Mapping[str, Any]
) -> tuple[LinearClassifierPipeline, dict[str, str]]:
    if config.classifier_path is None:
        where = (config.wandb_project, config.model_name, config.version, config.wandb_entity)
        pipeline, _, metadata = load_pipeline_from_wandb(*where)
        return pipeline, metadata
    return load_with_artifact(Path(config.classifier_path), uns)


def load_with_artifact(path: Path, uns: Mapping[str, Any]) -> tuple[LinearClassifierPipeline, dict[str, str]]:
    """Load a classifier for embeddings, and what these say of it (`artifact_metadata` of `predict_with_classifier`).

    Warns where ``uns`` of the embeddings names another encoder than it was trained on.
    """
    pipeline, content = load_classifier(path)
    if note := encoder_note(content.get("origin"), uns, f"the classifier {path}"):
        say(note)
    names = {"artifact_name": path.name, "artifact_id": _hash_file(path)}
    return pipeline, names | {"artifact_version": content["schema"]}


def _counts_table(predicted: pd.Series, task: str) -> ReportTable:
    counts = predicted.value_counts(dropna=False, sort=False)
    rows = [("not predicted" if pd.isna(name) else str(name), str(count)) for name, count in counts.items() if count]
    return ReportTable(f"Predicted {task}", ("class", "cells"), rows)
