"""`dynaclr apply-linear-classifier`: predicted states of the cells of a store of embeddings."""

from __future__ import annotations

from dynaclr.commands.from_config import config_command

__all__ = ["apply_linear_classifier"]

apply_linear_classifier = config_command(
    "apply-linear-classifier",
    "dynaclr.evaluation.classifiers:apply_from_config",
    "viscy_utils.evaluation.linear_classifier_config:LinearClassifierInferenceConfig",
    "Add the predictions of a linear classifier to embeddings: obs, obsm and uns `predicted_<task>...`.",
    """  classifier_path: infection.npz
  embeddings_path: other_embeddings.zarr
  output_path: predicted.zarr           # without: added to embeddings_path
  include_wells: [A/1]                  # optional""",
)
