"""Commands that work on stores of embeddings, each as a small YAML file says."""

from __future__ import annotations

from pathlib import Path

import click

from dynaclr.commands.from_config import config_command
from viscy_utils.cli.application import CONTEXT_SETTINGS
from viscy_utils.cli.errors import report_errors

__all__ = [
    "append_annotations",
    "append_predictions",
    "compare_models",
    "evaluate_smoothness",
    "plot_embeddings",
    "reduce_dimensionality",
    "split_embeddings",
]

append_annotations = config_command(
    "append-annotations",
    "dynaclr.evaluation.appending:append_annotations",
    "dynaclr.evaluation.store_configs:AppendAnnotationsConfig",
    "Add columns of annotation tables to embeddings; cells that no table names have none.",
    """  embeddings_path: embeddings.zarr
  annotations:
    - {experiment: plate1, path: plate1.csv}   # columns fov_name, track_id, t and the annotations
  columns: [infection_state]
  output_path: annotated.zarr                  # without: added to embeddings_path""",
)

append_predictions = config_command(
    "append-predictions",
    "dynaclr.evaluation.appending:append_predictions",
    "dynaclr.evaluation.store_configs:AppendPredictionsConfig",
    "Add the predictions of several linear classifiers to embeddings.",
    """  embeddings_path: embeddings.zarr
  classifiers: [infection.npz, division.npz]   # or pipelines_dir: classifiers/
  output_path: predicted.zarr                  # without: added to embeddings_path""",
)

reduce_dimensionality = config_command(
    "reduce-dimensionality",
    "dynaclr.evaluation.reducing:reduce_dimensionality",
    "dynaclr.evaluation.store_configs:ReduceDimensionalityConfig",
    "Add reductions to embeddings: obsm X_pca, X_umap, X_phate, X_pacmap; of several stores X_pca_combined and on.",
    """  input_paths: [plate1.zarr, plate2.zarr]      # or input_path: embeddings.zarr
  pca: {n_components: 32}
  umap: {n_neighbors: 15}
  overwrite_keys: false""",
)

evaluate_smoothness = config_command(
    "evaluate-smoothness",
    "dynaclr.evaluation.smoothness_runs:evaluate_smoothness",
    "dynaclr.evaluation.store_configs:EvaluateSmoothnessConfig",
    "Compare the steps of tracks with random pairs of cells, for several models.",
    """  models:
    - {path: first.zarr, label: first}
    - {path: second.zarr, label: second}
  distance_metric: cosine
  output_dir: smoothness""",
)

compare_models = config_command(
    "compare-models",
    "dynaclr.evaluation.smoothness_runs:compare_models",
    "dynaclr.evaluation.store_configs:CompareModelsConfig",
    "Lay results of evaluate-smoothness side by side.",
    """  result_files:
    - {path: smoothness/first_smoothness.csv, label: first}
    - {path: smoothness/second_smoothness.csv, label: second}
  output_path: comparison.md
  output_format: markdown                      # csv, json""",
)

plot_embeddings = config_command(
    "plot-embeddings",
    "dynaclr.evaluation.plots:plot_embeddings",
    "dynaclr.evaluation.store_configs:PlotEmbeddingsConfig",
    "Draw reductions of embeddings, coloured by columns.",
    """  input_path: embeddings.zarr                  # or input_paths: [plate1.zarr, plate2.zarr]
  output_dir: pictures
  embedding_keys: [X_pca, X_umap]
  color_by: [condition, experiment, hours_post_infection]
  format: png                                  # pdf, svg""",
)


@click.command(
    "split-embeddings",
    context_settings=CONTEXT_SETTINGS,
    epilog="\b\nExample:\n  dynaclr split-embeddings -i embeddings.zarr -o experiments",
)
@click.option("--input", "-i", "input_path", required=True, type=click.Path(path_type=Path), help="Store to split.")
@click.option("--output-dir", "-o", required=True, type=click.Path(path_type=Path), help="Folder of the stores.")
@click.option("--overwrite", is_flag=True, help="Replace stores that are there.")
@report_errors("dynaclr")
def split_embeddings(input_path: Path, output_dir: Path, overwrite: bool) -> None:
    """Write the embeddings of each experiment to a store of its own."""
    from viscy_utils.embeddings.kind import refuse_unfinished

    refuse_unfinished(input_path)
    from dynaclr.evaluation.splitting import split_embeddings as split

    split(input_path, output_dir, overwrite)
