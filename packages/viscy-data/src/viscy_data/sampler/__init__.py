"""Which anchors make a batch: any combination of experiment, leak, condition and time, from any table."""

from viscy_data.sampler.flexible import FlexibleBatchSampler
from viscy_data.sampler.groups import AnchorColumns
from viscy_data.sampler.plan import BatchPlan

__all__ = ["AnchorColumns", "BatchPlan", "FlexibleBatchSampler"]
