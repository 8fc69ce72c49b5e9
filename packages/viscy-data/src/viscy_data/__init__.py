"""OME-Zarr and tracking tables in, batches out: datasets, samplers, patch reading.

Names are imported from their modules when first used, so ``import viscy_data`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "viscy_data.channel_dropout": ["ChannelDropout"],
    "viscy_data.channels": ["center_crop", "gather_channels", "scatter_channels", "transform_channelwise"],
    "viscy_data.distributed": ["ShardedDistributedSampler"],
    "viscy_data.errors": ["InputError", "MissingInputError"],
    "viscy_data.labels": [
        "LABEL_CELL_CYCLE_STATE",
        "LABEL_CELL_DIVISION_STATE",
        "LABEL_CELL_REMODELING_STATE",
        "LABEL_INFECTION_STATE",
    ],
    "viscy_data.norm_meta": ["NormStatistics", "collate_norm_meta", "read_norm_meta"],
    "viscy_data.patches": ["PatchReader", "clamp_centers", "patch_start"],
    "viscy_data.sampler": ["BatchPlan", "FlexibleBatchSampler"],
    "viscy_data.select": ["select_fovs"],
    "viscy_data.stores": ["FovInfo", "FovKey", "PlateWriter", "read_attributes", "read_plate", "update_attributes"],
    "viscy_data.tracks": ["find_tracks", "read_tracks", "write_tracks"],
    "viscy_data.triplet": ["TripletDataModule", "TripletDataset"],
    "viscy_data.typing": [
        "INDEX_COLUMNS",
        "AnnotationColumns",
        "ChannelMap",
        "ChannelNormStats",
        "DictTransform",
        "HCSStackIndex",
        "LevelNormStats",
        "NormMeta",
        "OneOrSeq",
        "Sample",
        "SegmentationSample",
        "TrackingIndex",
        "TripletSample",
    ],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
