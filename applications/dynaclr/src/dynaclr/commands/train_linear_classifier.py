"""`dynaclr train-linear-classifier`: a classifier of annotated states, as a file of arrays and JSON."""

from __future__ import annotations

from dynaclr.commands.from_config import config_command

__all__ = ["train_linear_classifier"]

train_linear_classifier = config_command(
    "train-linear-classifier",
    "dynaclr.evaluation.classifiers:train_from_config",
    "viscy_utils.evaluation.linear_classifier_config:LinearClassifierTrainConfig",
    "Train a linear classifier of an annotation, and judge it on FOVs that it has not seen.",
    """  task: infection_state
  output_path: infection.npz
  train_datasets:
    - embeddings: embeddings.zarr
      annotations: annotations.csv      # fov_name, track_id, t (or id), infection_state
      include_wells: [A/1, B/1]         # optional
  split_train_data: 0.8                 # by whole FOVs""",
    replaces="an existing classifier",
)
