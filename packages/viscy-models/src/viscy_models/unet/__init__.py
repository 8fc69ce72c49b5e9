"""Networks that turn an image into an image."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "fcmae": ["FullyConvolutionalMAE"],
        "unet25d": ["Unet25d"],
        "unet2d": ["Unet2d"],
        "unext2": ["UNeXt2"],
    },
)
