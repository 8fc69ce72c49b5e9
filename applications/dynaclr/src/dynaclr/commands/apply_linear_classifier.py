"""`dynaclr apply-linear-classifier`: predicted states of the cells of a store of embeddings."""

from __future__ import annotations

from pathlib import Path

import click

from viscy_utils.cli.errors import report_errors

__all__ = ["apply_linear_classifier"]


@click.command(
    "apply-linear-classifier",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\n"
    + """Example:
  classifier_path: infection.npz
  embeddings_path: other_embeddings.zarr
  output_path: predicted.zarr           # without: added to embeddings_path
  include_wells: [A/1]                  # optional""",
)
@click.option("--config", "-c", "path", required=True, type=click.Path(path_type=Path), help="YAML file, see below.")
@report_errors("dynaclr")
def apply_linear_classifier(path: Path) -> None:
    """Add the predictions of a linear classifier to embeddings: obs, obsm and uns `predicted_<task>...`."""
    from dynaclr.evaluation.classifiers import apply_from_config

    apply_from_config(path)
