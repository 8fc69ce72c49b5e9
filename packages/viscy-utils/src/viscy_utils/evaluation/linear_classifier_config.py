"""What the YAML files of linear classifiers may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from viscy_data.checks import near_matches
from viscy_data.files import near_files
from viscy_data.optional import from_extra
from viscy_utils.cli.yaml_models import YamlModel

with from_extra("eval", package="viscy-utils"):
    from pydantic import Field, model_validator

__all__ = [
    "VALID_CHANNELS",
    "VALID_TASKS",
    "LinearClassifierCrossValidationConfig",
    "LinearClassifierInferenceConfig",
    "LinearClassifierTrainConfig",
]

VALID_TASKS = Literal["infection_state", "organelle_state", "cell_division_state", "cell_death_state"]
"""Usual names of tasks; any column of the annotations will do."""

VALID_CHANNELS = Literal["phase", "sensor", "organelle"]
"""Usual names of channels; they only name the artifact of a classifier."""

_OF_DATASET = ("embeddings", "annotations", "include_wells")


class LinearClassifierTrainConfig(YamlModel):
    """Configuration of ``train-linear-classifier``.

    Attributes
    ----------
    task : str
        Column of the annotations to tell.
    input_channel, marker, embedding_model : str
        For the name of the artifact and the record.
    train_datasets : list of dict
        ``embeddings``, ``annotations``, and optionally ``include_wells``, of each.
    use_scaling, use_pca, n_pca_components, max_iter, class_weight, solver, split_train_data, random_seed, calibrate
        See `viscy_utils.evaluation.linear_classifier.train_linear_classifier`.
    output_path : str, optional
        File of the classifier. Needed without ``wandb_project``.
    wandb_project, wandb_entity, wandb_tags
        Also save it to Weights & Biases.
    """

    task: str
    input_channel: str = "phase"
    marker: str | None = None
    embedding_model: str = "unnamed"
    train_datasets: list[dict[str, Any]] = Field(min_length=1)
    use_scaling: bool = True
    use_pca: bool = False
    n_pca_components: int | None = None
    max_iter: int = Field(default=1000, gt=0)
    class_weight: Literal["balanced"] | None = "balanced"
    solver: Literal["lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga"] = "lbfgs"
    split_train_data: float = Field(default=0.8, gt=0, le=1)
    random_seed: int = 42
    calibrate: bool = True
    output_path: str | None = None
    wandb_project: str | None = None
    wandb_entity: str | None = None
    wandb_tags: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def validate_config(self) -> LinearClassifierTrainConfig:
        """Check what depends on several fields, and that all files are there."""
        if self.use_pca and (self.n_pca_components is None or self.n_pca_components < 1):
            raise ValueError("n_pca_components: use_pca needs a number of at least 1")
        if self.output_path is None and self.wandb_project is None:
            raise ValueError("output_path: nothing says where the classifier goes")
        _check_datasets(self.train_datasets)
        return self


class LinearClassifierCrossValidationConfig(YamlModel):
    """Configuration of ``cross-validate``.

    Attributes
    ----------
    task : str
        Column of the annotations to tell.
    train_datasets : list of dict
        As for ``train-linear-classifier``: they are divided.
    by, n_folds, use_scaling, n_pca_components, random_seed
        See `viscy_utils.evaluation.linear_classifier_validation.cross_validate`.
    max_iter, class_weight, solver
        Of `sklearn.linear_model.LogisticRegression`.
    output_dir : str
        Folder of the tables.
    """

    task: str
    train_datasets: list[dict[str, Any]] = Field(min_length=1)
    by: Literal["experiment", "fov", "lineage"] = "fov"
    n_folds: int = Field(default=5, ge=2)
    use_scaling: bool = True
    n_pca_components: int | None = Field(default=None, ge=1)
    max_iter: int = Field(default=1000, gt=0)
    class_weight: Literal["balanced"] | None = "balanced"
    solver: str = "lbfgs"
    random_seed: int = 42
    output_dir: str

    @model_validator(mode="after")
    def validate_datasets(self) -> LinearClassifierCrossValidationConfig:
        """Check that all files are there."""
        _check_datasets(self.train_datasets)
        return self


def _check_datasets(datasets: list[dict[str, Any]]) -> None:
    for number, dataset in enumerate(datasets):
        for key in set(dataset) - set(_OF_DATASET):
            raise ValueError(f"train_datasets[{number}].{key}: an unknown key; {near_matches(key, _OF_DATASET)}")
        for key in ("embeddings", "annotations"):
            if not dataset.get(key):
                raise ValueError(f"train_datasets[{number}]: {key} is missing")
            if not isinstance(dataset[key], str | Path):
                raise ValueError(f"train_datasets[{number}].{key}: expected a path, found {dataset[key]!r}")
            if not Path(dataset[key]).exists():
                raise ValueError(f"train_datasets[{number}].{key}: {_absent(dataset[key])}")


class LinearClassifierInferenceConfig(YamlModel):
    """Configuration of ``apply-linear-classifier``.

    Attributes
    ----------
    classifier_path : str, optional
        File of the classifier. Excludes ``wandb_project``.
    wandb_project, model_name, version, wandb_entity
        Where it is at Weights & Biases.
    embeddings_path : str
        AnnData store to predict.
    output_path : str, optional
        Where to write the store with the predictions; by default predictions are added to the one that was read.
    include_wells : list of str, optional
        Predict only these.
    overwrite : bool, default False
        Replace an existing output, or predictions of the same task.
    """

    classifier_path: str | None = None
    wandb_project: str | None = None
    model_name: str | None = None
    version: str = "latest"
    wandb_entity: str | None = None
    embeddings_path: str
    output_path: str | None = None
    include_wells: list[str] | None = None
    overwrite: bool = False

    @model_validator(mode="after")
    def validate_paths(self) -> LinearClassifierInferenceConfig:
        """Check that there is one classifier, that inputs are there, and that no output is."""
        if (self.classifier_path is None) == (self.wandb_project is None):
            raise ValueError("classifier_path: give it, or wandb_project with model_name")
        if self.wandb_project is not None and self.model_name is None:
            raise ValueError("model_name: wandb_project needs the name of the classifier")
        for name in ("classifier_path", "embeddings_path"):
            path = getattr(self, name)
            if path is not None and not Path(path).exists():
                raise ValueError(f"{name}: {_absent(path)}")
        if self.output_path is not None and Path(self.output_path).exists() and not self.overwrite:
            raise ValueError(f"output_path: {self.output_path} exists; choose another one or set overwrite: true")
        return self


def _absent(path: str) -> str:
    return f"{path} does not exist; {near_files(path, otherwise='correct the path')}"
