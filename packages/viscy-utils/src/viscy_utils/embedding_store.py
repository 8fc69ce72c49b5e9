"""Old name of :mod:`viscy_utils.embeddings.store`."""

from viscy_utils.embeddings.store import *  # noqa: F403
