"""Old name of :mod:`viscy_utils.statistics.normalize`."""

from viscy_utils.statistics.normalize import *  # noqa: F403
