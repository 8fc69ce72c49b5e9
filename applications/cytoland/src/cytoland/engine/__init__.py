"""Lightning modules of the application, loaded on first use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "augmented": ["AugmentedPredictionVSUNet", "rotation_tta_transforms"],
        "fcmae": ["FcmaeUNet"],
        "masked_mse": ["MaskedMSELoss"],
        "translation": ["VSUNet"],
    },
)
