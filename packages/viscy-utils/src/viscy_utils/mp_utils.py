"""Old name of :mod:`viscy_utils.statistics.summaries`."""

from viscy_utils.statistics.summaries import *  # noqa: F403
