"""Old name of :mod:`viscy_utils.statistics.precompute`."""

from viscy_utils.statistics.precompute import *  # noqa: F403
