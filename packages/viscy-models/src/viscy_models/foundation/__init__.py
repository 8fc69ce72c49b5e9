"""Pretrained encoders as they come to users: stacks of any channels in, features of a vision transformer out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cell_dino": ["CellDinoModel"],
        "dinov3": ["DINOv3Model"],
        "openphenom": ["OpenPhenomModel"],
        "pretrained": ["PretrainedEncoder"],
        "timm_encoder": ["TimmEncoder"],
    },
)
