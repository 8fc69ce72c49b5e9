"""`dynaclr train-linear-classifier`: a classifier of annotated states, as a file of arrays and JSON."""

from __future__ import annotations

from pathlib import Path

import click

from viscy_utils.cli.errors import report_errors

__all__ = ["train_linear_classifier"]


@click.command(
    "train-linear-classifier",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\n"
    + """Example:
  task: infection_state
  output_path: infection.npz
  train_datasets:
    - embeddings: embeddings.zarr
      annotations: annotations.csv      # fov_name, track_id, t (or id), infection_state
      include_wells: [A/1, B/1]         # optional
  split_train_data: 0.8                 # by whole FOVs""",
)
@click.option("--config", "-c", "path", required=True, type=click.Path(path_type=Path), help="YAML file, see below.")
@click.option("--overwrite", is_flag=True, help="Replace an existing classifier.")
@report_errors("dynaclr")
def train_linear_classifier(path: Path, overwrite: bool) -> None:
    """Train a linear classifier of an annotation, and judge it on FOVs that it has not seen."""
    from dynaclr.evaluation.classifiers import train_from_config

    train_from_config(path, overwrite=overwrite)
