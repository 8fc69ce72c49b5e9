"""Virtual staining: from label-free stacks to fluorescence.

Every public name is loaded on first use, so that importing the package, and with it the command line, stays cheap.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "engine": [
            "AugmentedPredictionVSUNet",
            "FcmaeUNet",
            "MaskedMSELoss",
            "VSUNet",
            "rotation_tta_transforms",
        ],
        "evaluation": ["SegmentationMetrics2D"],
    },
)
