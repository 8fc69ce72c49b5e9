"""What the YAML files of commands that work on stores of embeddings may say."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from viscy_data.files import refuse_absent
from viscy_utils.cli.yaml_models import Reads, YamlModel
from viscy_utils.embeddings.kind import kind_of_store

__all__ = [
    "METRICS",
    "AppendAnnotationsConfig",
    "AppendPredictionsConfig",
    "CompareModelsConfig",
    "EvaluateSmoothnessConfig",
    "PlotEmbeddingsConfig",
    "ReduceDimensionalityConfig",
]


METRICS = [
    "smoothness_score",
    "dynamic_range",
    "adjacent_frame_mean",
    "adjacent_frame_peak",
    "random_frame_mean",
    "random_frame_peak",
]
"""What ``compare-models`` lays side by side unless it is told otherwise."""


Store = Annotated[str, Reads(kind_of_store)]
Stores = Annotated[list[str] | None, Reads(kind_of_store)]
OptionalStore = Annotated[str | None, Reads(kind_of_store)]


class _Reduction(YamlModel):
    n_components: int | None = Field(default=None, gt=0)


class PCAConfig(_Reduction):
    """Principal components."""

    normalize_features: bool = True


class UMAPConfig(_Reduction):
    """UMAP (McInnes et al. 2018)."""

    n_components: int = Field(default=2, gt=0)
    n_neighbors: int = Field(default=15, gt=1)
    normalize: bool = True


class PHATEConfig(_Reduction):
    """PHATE (Moon et al. 2019)."""

    n_components: int = Field(default=2, gt=0)
    knn: int = Field(default=5, gt=0)
    decay: int = Field(default=40, gt=0)
    knn_dist: str = "cosine"
    scale_embeddings: bool = False
    random_state: int = 42
    n_pca: int | None = 50
    n_jobs: int = 1


class PaCMAPConfig(_Reduction):
    """PaCMAP (Wang et al. 2021)."""

    n_components: int = Field(default=2, gt=0)
    n_neighbors: int = Field(default=10, gt=1)
    normalize: bool = True


class ReduceDimensionalityConfig(YamlModel):
    """Configuration of ``reduce-dimensionality``.

    Attributes
    ----------
    input_path : str, optional
        A store of embeddings, reduced by itself: ``obsm["X_pca"]``, ``X_umap``, ``X_phate``, ``X_pacmap``.
    input_paths : list of str, optional
        Several, reduced together: ``obsm["X_pca_combined"]`` ... of each.
    output_path : str, optional
        Of a single store; by default the reductions are added to it.
    pca, umap, phate, pacmap : mapping, optional
        Arguments of each that is asked for; ``{}`` takes the defaults.
    overwrite_keys : bool, default False
        Replace reductions that are there, or the output.
    """

    input_path: OptionalStore = None
    input_paths: Stores = None
    output_path: str | None = None
    pca: PCAConfig | None = None
    umap: UMAPConfig | None = None
    phate: PHATEConfig | None = None
    pacmap: PaCMAPConfig | None = None
    overwrite_keys: bool = False

    @model_validator(mode="after")
    def validate_config(self) -> ReduceDimensionalityConfig:
        """Check that there is input, and something to do with it."""
        if (self.input_path is None) == (self.input_paths is None):
            raise ValueError("input_path: give it, or input_paths")
        if self.input_paths is not None and self.output_path is not None:
            raise ValueError("output_path: several stores get their reductions where they are; leave it out")
        if not self.requested():
            raise ValueError("pca: no reduction asked for; give pca, umap, phate or pacmap")
        return self

    def requested(self) -> dict[str, dict]:
        """Return the arguments of each reduction that is asked for, as the estimators call them."""
        found = {}
        for method in ("pca", "umap", "phate", "pacmap"):
            config = getattr(self, method)
            if config is not None:
                options = config.model_dump(exclude_none=True)
                for name in ("normalize", "scale_embeddings"):
                    if name in options:
                        options["normalize_features"] = options.pop(name)
                found[method] = options
        return found


class Annotations(YamlModel):
    """A table of annotations; ``experiment`` names the one that it is of, where it has no such column."""

    path: Annotated[str, Reads(partial(refuse_absent, expected="a CSV file of labels"))]
    experiment: str | None = None


class AppendAnnotationsConfig(YamlModel):
    """Configuration of ``append-annotations``.

    Attributes
    ----------
    embeddings_path : str
        Store of embeddings.
    annotations : list of {path, experiment}
        CSV files with ``fov_name``, ``track_id``, ``t``, the columns, and ``experiment`` unless it is said here.
    columns : list of str
        To append.
    output_path : str, optional
        By default the columns are added to the embeddings.
    overwrite : bool, default False
        Replace columns that are there, or the output.
    """

    embeddings_path: Store
    annotations: list[Annotations] = Field(min_length=1)
    columns: list[str] = Field(min_length=1)
    output_path: str | None = None
    overwrite: bool = False


class AppendPredictionsConfig(YamlModel):
    """Configuration of ``append-predictions``.

    Attributes
    ----------
    embeddings_path : str
        Store of embeddings.
    pipelines_dir : str, optional
        Folder of classifiers, all of which are applied; or
    classifiers : list of str, optional
        files that ``train-linear-classifier`` has written.
    output_path : str, optional
        By default the predictions are added to the embeddings.
    overwrite : bool, default False
        Replace predictions of the same tasks, or the output.
    """

    embeddings_path: Store
    pipelines_dir: str | None = None
    classifiers: Annotated[list[str] | None, Reads(partial(refuse_absent, expected="a classifier"))] = Field(
        default=None, min_length=1
    )
    output_path: str | None = None
    overwrite: bool = False

    @model_validator(mode="after")
    def validate_config(self) -> AppendPredictionsConfig:
        """Check that there are classifiers."""
        if (self.pipelines_dir is None) == (self.classifiers is None):
            raise ValueError("classifiers: give them, or pipelines_dir")
        if self.pipelines_dir is not None and not self.files():
            raise ValueError(f"pipelines_dir: no classifier (*.npz) in {self.pipelines_dir}")
        return self

    def files(self) -> list[Path]:
        """List the files of the classifiers."""
        if self.classifiers is not None:
            return [Path(path) for path in self.classifiers]
        return sorted(Path(self.pipelines_dir or ".").glob("*.npz"))


class Named(YamlModel):
    """A path, and what it is called in tables and names of files."""

    path: str
    label: str = Field(pattern=r"^[^/\\]+$")


class NamedStore(Named):
    """Embeddings and what they are called."""

    path: Store


class NamedResult(Named):
    """A table of ``evaluate-smoothness`` and what it is called."""

    path: Annotated[str, Reads(partial(refuse_absent, expected="a result of evaluate-smoothness"))]


class _WithLabels(YamlModel):
    @staticmethod
    def refuse_repeated(entries: Sequence[Named], field: str) -> None:
        labels = [entry.label for entry in entries]
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            raise ValueError(f"{field}: several are called {', '.join(repeated)}")


class EvaluateSmoothnessConfig(_WithLabels):
    """Configuration of ``evaluate-smoothness``.

    Attributes
    ----------
    models : list of {path, label}
        Stores of embeddings.
    distance_metric : {"cosine", "euclidean"}, default "cosine"
    output_dir : str
        Gets ``<label>_smoothness.csv`` of each, and ``comparison.csv``.
    save_plots : bool, default True
        Draw both distributions of each.
    save_distributions : bool, default False
        Write the distances, ``<label>_distributions.npz``.
    overwrite : bool, default False
    """

    models: list[NamedStore] = Field(min_length=1)
    distance_metric: Literal["cosine", "euclidean"] = "cosine"
    output_dir: str
    save_plots: bool = True
    save_distributions: bool = False
    overwrite: bool = False

    @model_validator(mode="after")
    def validate_config(self) -> EvaluateSmoothnessConfig:
        """Check that labels differ."""
        self.refuse_repeated(self.models, "models")
        return self


class CompareModelsConfig(_WithLabels):
    """Configuration of ``compare-models``.

    Attributes
    ----------
    result_files : list of {path, label}
        What ``evaluate-smoothness`` has written of each model.
    metrics : list of str
    output_path : str, optional
        Also write the table there.
    output_format : {"markdown", "csv", "json"}, default "markdown"
    overwrite : bool, default False
    """

    result_files: list[NamedResult] = Field(min_length=1)
    metrics: list[str] = Field(default=METRICS, min_length=1)
    output_path: str | None = None
    output_format: Literal["markdown", "csv", "json"] = "markdown"
    overwrite: bool = False

    @model_validator(mode="after")
    def validate_config(self) -> CompareModelsConfig:
        """Check that labels differ."""
        self.refuse_repeated(self.result_files, "result_files")
        return self


class PlotEmbeddingsConfig(YamlModel):
    """Configuration of ``plot-embeddings``.

    Attributes
    ----------
    input_path, input_paths
        A store of embeddings, or several that are drawn together.
    output_dir : str
        Gets one picture per entry of ``embedding_keys``.
    embedding_keys : list of str, default ["X_pca"]
        Keys of ``obsm``; the first two axes are drawn.
    color_by : list of str, default ["condition", "experiment", "hours_post_infection"]
        Columns of ``obs``, a panel each; those that no store has are left out and named.
    point_size : float, default 2
    max_cells : int, default 20000
        At most so many points, drawn at random.
    format : {"png", "pdf", "svg"}, default "png"
    overwrite : bool, default False
    """

    input_path: OptionalStore = None
    input_paths: Stores = None
    output_dir: str
    embedding_keys: list[str] = Field(default=["X_pca"], min_length=1)
    color_by: list[str] = Field(default=["condition", "experiment", "hours_post_infection"], min_length=1)
    point_size: float = Field(default=2.0, gt=0)
    max_cells: int = Field(default=20_000, gt=0)
    format: Literal["png", "pdf", "svg"] = "png"
    overwrite: bool = False

    @model_validator(mode="after")
    def validate_input(self) -> PlotEmbeddingsConfig:
        """Check that there is input."""
        if (self.input_path is None) == (self.input_paths is None):
            raise ValueError("input_path: give it, or input_paths")
        return self
