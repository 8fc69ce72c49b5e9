"""Variational autoencoders: an image in, its distribution in a latent space and its reconstruction out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "beta_vae_25d": ["BetaVae25D"],
        "beta_vae_monai": ["BetaVaeMonai"],
    },
)
