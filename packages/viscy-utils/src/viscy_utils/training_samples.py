"""Old name of :mod:`viscy_utils.pictures.training_samples`."""

from viscy_utils.pictures.training_samples import *  # noqa: F403
