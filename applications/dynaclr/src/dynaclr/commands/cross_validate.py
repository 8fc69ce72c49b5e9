"""`dynaclr cross-validate`: how well a classifier of annotated states does on groups that it has not seen."""

from __future__ import annotations

from dynaclr.commands.from_config import config_command

__all__ = ["cross_validate"]

cross_validate = config_command(
    "cross-validate",
    "dynaclr.evaluation.cross_validation:cross_validate_from_config",
    "viscy_utils.evaluation.linear_classifier_config:LinearClassifierCrossValidationConfig",
    "Cross-validate a linear classifier over whole experiments, FOVs or lineages.\n\n"
    "Prints and writes figures of all cells, of each class and of each fold, with intervals over lineages and chance.",
    """  task: infection_state
  output_dir: cross_validation
  by: experiment                        # or fov, lineage: never on both sides
  n_folds: 5
  train_datasets:
    - embeddings: first.zarr
      annotations: first.csv            # fov_name, track_id, t (or id), infection_state
    - embeddings: second.zarr
      annotations: second.csv""",
    replaces="existing tables",
)
