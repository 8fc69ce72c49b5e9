"""Encoders for contrastive learning: an image in, an embedding and its projection out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "encoder": ["ContrastiveEncoder"],
        "projection": ["projection_mlp"],
        "resnet3d": ["ResNet3dEncoder"],
    },
)
