"""Old name of :mod:`viscy_utils.cli.text_formats`."""

from viscy_utils.cli.text_formats import *  # noqa: F403
