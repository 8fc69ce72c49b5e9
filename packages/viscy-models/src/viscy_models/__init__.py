"""Neural network architectures for microscopy, as plain torch modules.

>>> from viscy_models import ContrastiveEncoder
>>> encoder = ContrastiveEncoder("convnext_atto", in_channels=1, in_stack_depth=5, embedding_dim=64)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_version": ["__version__"],
        "checkpoints": ["load_weights"],
        "contrastive": ["ContrastiveEncoder", "ResNet3dEncoder"],
        "unet": ["FullyConvolutionalMAE", "UNeXt2", "Unet25d", "Unet2d"],
        "vae": ["BetaVae25D", "BetaVaeMonai"],
    },
)
