"""Losses for representation learning: pure functions on tensors, and modules made of them; torch and nothing else.

>>> from viscy_losses import LossRegistry, SimCLRLoss
>>> loss = SimCLRLoss(temperature=0.07)
>>> loss(anchor, positive)["loss"].backward()  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["functional"],
    {
        "_version": ["__version__"],
        "barlow_twins": ["BarlowTwinsLoss"],
        "base": ["BaseLoss"],
        "clip": ["CLIPLoss"],
        "contrastive": ["ContrastiveLoss"],
        "debiased": ["DebiasedLoss"],
        "decoupled": ["DCLLoss"],
        "focal": ["FocalLoss"],
        "hard_negative": ["HardNegativeLoss"],
        "moco": ["MoCoLoss"],
        "registry": ["LossRegistry"],
        "siglip": ["SigLIPLoss"],
        "simclr": ["SimCLRLoss"],
        "supcon": ["SupConLoss"],
        "temperature": ["LearnedTemperature"],
        "triplet": ["TripletLoss"],
        "vicreg": ["VICRegLoss"],
    },
)
