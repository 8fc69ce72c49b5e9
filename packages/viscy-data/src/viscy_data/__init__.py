"""OME-Zarr and tracking tables in, batches out: datasets, samplers, patch reading.

Names are imported from their modules when first used, so ``import viscy_data`` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cell_classification": ["ClassificationDataModule", "ClassificationDataset"],
        "cell_division_triplet": ["CellDivisionTripletDataModule", "CellDivisionTripletDataset"],
        "channel_dropout": ["ChannelDropout"],
        "channels": ["center_crop", "gather_channels", "scatter_channels", "transform_channelwise"],
        "combined": [
            "BatchedConcatDataModule",
            "BatchedConcatDataset",
            "CachedConcatDataModule",
            "CombineMode",
            "CombinedDataModule",
            "ConcatDataModule",
        ],
        "ctmc_v1": ["CTMCv1DataModule"],
        "distributed": ["ShardedDistributedSampler"],
        "errors": ["InputError", "MissingInputError"],
        "gpu_aug": ["CachedOmeZarrDataModule", "CachedOmeZarrDataset", "GPUTransformDataModule"],
        "hcs": ["HCSDataModule"],
        "labels": [
            "LABEL_CELL_CYCLE_STATE",
            "LABEL_CELL_DIVISION_STATE",
            "LABEL_CELL_REMODELING_STATE",
            "LABEL_INFECTION_STATE",
        ],
        "livecell": ["LiveCellDataModule", "LiveCellDataset", "LiveCellTestDataset"],
        "mmap_cache": ["MmappedDataModule", "MmappedDataset"],
        "norm_meta": ["NormStatistics", "collate_norm_meta", "read_norm_meta"],
        "patches": ["PatchReader", "clamp_centers", "patch_start"],
        "sampler": ["BatchPlan", "FlexibleBatchSampler"],
        "segmentation": ["SegmentationDataModule", "SegmentationDataset"],
        "select": ["SelectWell", "select_fovs"],
        "sliding_window": ["MaskTestDataset", "SlidingWindowDataset"],
        "splits": ["FovSplit"],
        "stores": [
            "FovInfo",
            "FovKey",
            "PlateWriter",
            "read_attributes",
            "read_fovs",
            "read_plate",
            "update_attributes",
        ],
        "tracks": ["find_tracks", "import_tracks", "read_tracks", "write_tracks"],
        "triplet": ["TripletDataModule", "TripletDataset"],
        "typing": [
            "AnnotationColumns",
            "ChannelMap",
            "ChannelNormStats",
            "DictTransform",
            "HCSStackIndex",
            "INDEX_COLUMNS",
            "LevelNormStats",
            "NormMeta",
            "OneOrSeq",
            "Sample",
            "SegmentationSample",
            "TrackingIndex",
            "TripletSample",
        ],
    },
)
