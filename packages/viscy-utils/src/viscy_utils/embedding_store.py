"""Old name of :mod:`viscy_utils.embeddings.store` and :mod:`viscy_utils.embeddings.reading`."""

from viscy_utils.embeddings.reading import *  # noqa: F403
from viscy_utils.embeddings.store import *  # noqa: F403
