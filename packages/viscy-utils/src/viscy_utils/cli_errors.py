"""Old name of :mod:`viscy_utils.cli.errors`."""

from viscy_utils.cli.errors import *  # noqa: F403
