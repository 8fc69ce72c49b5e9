"""Moved to :mod:`viscy_data.distributed`."""

from viscy_data.distributed import FixedOrderBatchSampler

__all__ = ["FixedOrderBatchSampler"]
