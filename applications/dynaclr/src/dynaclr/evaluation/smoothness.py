"""Old place of `viscy_utils.evaluation.smoothness`."""

from viscy_utils.evaluation.smoothness import temporal_smoothness

__all__ = ["temporal_smoothness"]
