"""Old place of `viscy_utils.evaluation.embedded` and `viscy_utils.evaluation.labels`."""

from viscy_utils.evaluation.embedded import Embedded, read_embedded
from viscy_utils.evaluation.labels import add_labels

__all__ = ["Embedded", "add_labels", "read_embedded"]
