"""Which anchors make a batch: any combination of experiment, leak, condition and time, from any table."""

from viscy_data.sampler.flexible import FlexibleBatchSampler

__all__ = ["FlexibleBatchSampler"]
