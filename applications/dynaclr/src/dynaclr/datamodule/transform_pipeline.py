"""Moved to :mod:`viscy_data.batches.pipeline`."""

from viscy_data.batches.pipeline import ROLES, TransformPipeline, collate_statistics

__all__ = ["ROLES", "TransformPipeline", "collate_statistics"]
