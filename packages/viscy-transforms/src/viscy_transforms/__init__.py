"""Image transforms for microscopy: MONAI-style dictionaries, batched on the GPU.

Everything is imported from here: ``from viscy_transforms import NormalizeSampled``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_filters.gaussian_smooth": ["BatchedRandGaussianSmooth", "BatchedRandGaussianSmoothd"],
        "_filters.noise": ["BatchedRandGaussianNoise", "BatchedRandGaussianNoised"],
        "_filters.noise_tensor": ["RandGaussianNoiseTensor", "RandGaussianNoiseTensord"],
        "_filters.pixel_shuffle": ["BatchedRandLocalPixelShufflingd"],
        "_filters.sharpen": ["BatchedRandSharpend"],
        "_geometric.affine": ["BatchedRandAffined"],
        "_geometric.crop": [
            "BatchedCenterSpatialCrop",
            "BatchedCenterSpatialCropd",
            "BatchedRandSpatialCrop",
            "BatchedRandSpatialCropd",
        ],
        "_geometric.elastic": ["BatchedRand3DElasticd"],
        "_geometric.flip": ["BatchedRandFlip", "BatchedRandFlipd"],
        "_geometric.tiled_crop": ["TiledSpatialCropSamplesd"],
        "_geometric.zoom": ["BatchedZoom", "BatchedZoomd"],
        "_geometric.zstack_shift": ["BatchedRandZStackShiftd"],
        "_intensity.contrast": ["BatchedRandAdjustContrast", "BatchedRandAdjustContrastd"],
        "_intensity.histogram_shift": ["BatchedRandHistogramShiftd"],
        "_intensity.invert": ["RandInvertIntensityd"],
        "_intensity.normalize": ["NormalizeSampled"],
        "_intensity.percentiles": ["BatchedScaleIntensityRangePercentiles", "BatchedScaleIntensityRangePercentilesd"],
        "_intensity.scale": ["BatchedRandScaleIntensity", "BatchedRandScaleIntensityd"],
        "_monai": [
            "CenterSpatialCropd",
            "Decollated",
            "NormalizeIntensityd",
            "RandAdjustContrastd",
            "RandAffined",
            "RandFlipd",
            "RandGaussianNoised",
            "RandGaussianSmoothd",
            "RandScaleIntensityd",
            "RandSpatialCropd",
            "RandWeightedCropd",
            "ScaleIntensityRangePercentilesd",
            "ToDeviced",
        ],
        "_structure.decollate": ["Decollate"],
        "_structure.stack_channels": ["StackChannelsd"],
        "_version": ["__version__"],
    },
)
