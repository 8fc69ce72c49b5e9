"""`dynaclr cross-validate`: how well a classifier of annotated states does on groups that it has not seen."""

from __future__ import annotations

from pathlib import Path

import click

from viscy_utils.cli.errors import report_errors

__all__ = ["cross_validate"]


@click.command(
    "cross-validate",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\n"
    + """Example:
  task: infection_state
  output_dir: cross_validation
  by: experiment                        # or fov, lineage: never on both sides
  n_folds: 5
  train_datasets:
    - embeddings: first.zarr
      annotations: first.csv            # fov_name, track_id, t (or id), infection_state
    - embeddings: second.zarr
      annotations: second.csv""",
)
@click.option("--config", "-c", "path", required=True, type=click.Path(path_type=Path), help="YAML file, see below.")
@click.option("--overwrite", is_flag=True, help="Replace existing tables.")
@report_errors("dynaclr")
def cross_validate(path: Path, overwrite: bool) -> None:
    """Cross-validate a linear classifier over whole experiments, FOVs or lineages.

    Prints and writes figures of all cells, of each class and of each fold, with intervals over lineages and chance.
    """
    from dynaclr.evaluation.cross_validation import cross_validate_from_config

    cross_validate_from_config(path, overwrite=overwrite)
