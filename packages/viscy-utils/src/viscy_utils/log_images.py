"""Old name of :mod:`viscy_utils.pictures.log_images`."""

from viscy_utils.pictures.log_images import *  # noqa: F403
