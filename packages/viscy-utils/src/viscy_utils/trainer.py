"""Old name of :mod:`viscy_utils.runs.trainer`."""

from viscy_utils.runs.trainer import *  # noqa: F403
