"""Image transforms for microscopy: MONAI-style dictionaries, batched on the GPU.

Everything is imported from here: ``from viscy_transforms import NormalizeSampled``.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Any

_EXPORTS = {
    "_filters.gaussian_smooth": ("BatchedRandGaussianSmooth", "BatchedRandGaussianSmoothd"),
    "_filters.noise": ("BatchedRandGaussianNoise", "BatchedRandGaussianNoised"),
    "_filters.noise_tensor": ("RandGaussianNoiseTensor", "RandGaussianNoiseTensord"),
    "_filters.pixel_shuffle": ("BatchedRandLocalPixelShufflingd",),
    "_filters.sharpen": ("BatchedRandSharpend",),
    "_geometric.affine": ("BatchedRandAffined",),
    "_geometric.crop": (
        "BatchedCenterSpatialCrop",
        "BatchedCenterSpatialCropd",
        "BatchedRandSpatialCrop",
        "BatchedRandSpatialCropd",
    ),
    "_geometric.flip": ("BatchedRandFlip", "BatchedRandFlipd"),
    "_geometric.elastic": ("BatchedRand3DElasticd",),
    "_geometric.tiled_crop": ("TiledSpatialCropSamplesd",),
    "_geometric.zoom": ("BatchedZoom", "BatchedZoomd"),
    "_geometric.zstack_shift": ("BatchedRandZStackShiftd",),
    "_intensity.histogram_shift": ("BatchedRandHistogramShiftd",),
    "_structure.decollate": ("Decollate",),
    "_structure.stack_channels": ("StackChannelsd",),
    "_intensity.contrast": ("BatchedRandAdjustContrast", "BatchedRandAdjustContrastd"),
    "_intensity.invert": ("RandInvertIntensityd",),
    "_intensity.normalize": ("NormalizeSampled",),
    "_intensity.percentiles": ("BatchedScaleIntensityRangePercentiles", "BatchedScaleIntensityRangePercentilesd"),
    "_intensity.scale": ("BatchedRandScaleIntensity", "BatchedRandScaleIntensityd"),
    "_monai": (
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
    ),
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"viscy_transforms.{_HOMES[name]}"), name)
    if name == "__version__":
        return metadata.version("viscy-transforms")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
