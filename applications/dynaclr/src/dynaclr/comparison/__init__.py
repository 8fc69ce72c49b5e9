"""Train a model with several losses alike, and judge them side by side: what ``dynaclr compare-losses`` does."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "compare": ["compare_losses"],
        "synthetic": ["LabelImagesDataModule"],
    },
)
