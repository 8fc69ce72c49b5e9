"""Old place of `viscy_utils.evaluation.embedded`."""

from viscy_utils.evaluation.embedded import Embedded, add_labels, read_embedded

__all__ = ["Embedded", "add_labels", "read_embedded"]
