"""Old place of `viscy_utils.evaluation.probe`."""

from viscy_utils.evaluation.probe import Score, experiment_separability, linear_probe

__all__ = ["Score", "experiment_separability", "linear_probe"]
