"""What a loader hands to its worker processes beside the dataset: a module that imports nothing, MONAI least of all."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["identity", "seed_transforms"]


def identity(batch: Any) -> Any:
    """Return the batch as it is: the collation of datasets that build whole batches. Pickles."""
    return batch


def seed_transforms(worker_id: int) -> None:
    """Seed MONAI's random transforms that a dataset has brought into this worker, each worker differently."""
    if "monai" in sys.modules:
        from monai.data.utils import worker_init_fn

        worker_init_fn(worker_id)
