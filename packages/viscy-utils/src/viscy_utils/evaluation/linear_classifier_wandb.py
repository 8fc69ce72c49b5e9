"""Classifiers as artifacts of Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from viscy_utils.evaluation.linear_classifier_file import load_classifier, save_classifier

if TYPE_CHECKING:
    from viscy_utils.evaluation.linear_classifier import LinearClassifierPipeline

__all__ = ["load_pipeline_from_wandb", "save_pipeline_to_wandb"]


def save_pipeline_to_wandb(
    pipeline: LinearClassifierPipeline,
    metrics: Mapping[str, float],
    config: Mapping[str, Any],
    wandb_project: str,
    wandb_entity: str | None = None,
    tags: Sequence[str] | None = None,
) -> str:
    """Log metrics and the file of a classifier (`viscy_utils.evaluation.linear_classifier_file`).

    Parameters
    ----------
    pipeline : LinearClassifierPipeline
    metrics : mapping of str to float
    config : mapping
        With ``task`` and ``input_channel``, perhaps ``marker``, ``use_pca`` and ``n_pca_components``.
    wandb_project : str
    wandb_entity : str, optional
    tags : sequence of str, optional

    Returns
    -------
    str
        Name of the artifact: ``linear-classifier-{task}-{input_channel}[-{marker}][-pca{n}]``.

    Raises
    ------
    KeyError
        If the config lacks the task or the channel.
    """
    wandb = _wandb()
    name = _artifact_name(config)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.npz"
        save_classifier(pipeline, path, {"metrics": dict(metrics), "config": dict(config)})
        options = {"project": wandb_project, "entity": wandb_entity, "name": name, "tags": list(tags or [])}
        with wandb.init(**options, job_type="linear-classifier", config=dict(config)) as run:
            run.log(dict(metrics))
            artifact = wandb.Artifact(name, type="model", metadata=dict(config))
            artifact.add_file(str(path))
            run.log_artifact(artifact)
            artifact.wait()
    return name


def load_pipeline_from_wandb(
    wandb_project: str, model_name: str, version: str = "latest", wandb_entity: str | None = None
) -> tuple[LinearClassifierPipeline, dict[str, Any], dict[str, str]]:
    """Download a classifier; artifacts of v2.2, which are pickles, are refused.

    Returns
    -------
    pipeline : LinearClassifierPipeline
    config : dict
        How it was trained.
    metadata : dict
        ``artifact_name``, ``artifact_id``, ``artifact_version``.

    Raises
    ------
    FileNotFoundError
        If the artifact has no ``.npz`` file.
    """
    prefix = f"{wandb_entity}/" if wandb_entity else ""
    artifact = _wandb().Api().artifact(f"{prefix}{wandb_project}/{model_name}:{version}")
    with TemporaryDirectory() as folder:
        files = sorted(Path(artifact.download(folder)).glob("*.npz"))
        if not files:
            raise FileNotFoundError(f"{model_name}:{version} holds no .npz file; train it again with this version")
        pipeline, content = load_classifier(files[0])
    metadata = {"artifact_name": artifact.name, "artifact_id": artifact.id, "artifact_version": artifact.version}
    return pipeline, content["config"], metadata


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as err:
        raise ImportError("Weights & Biases is not installed: pip install wandb") from err
    return wandb


def _artifact_name(config: Mapping[str, Any]) -> str:
    parts = ["linear-classifier", config["task"], config["input_channel"]]
    parts += [config["marker"]] if config.get("marker") else []
    parts += [f"pca{config['n_pca_components']}"] if config.get("use_pca") else []
    return "-".join(parts)
