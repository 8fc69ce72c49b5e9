"""Old name of :mod:`viscy_utils.statistics.metadata`."""

from viscy_utils.statistics.metadata import *  # noqa: F403
