"""What training and evaluation share: command line, trainer, callbacks, normalisation statistics, embeddings."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "pictures.log_images": ["detach_sample", "render_images"],
        "statistics.normalize": ["hist_clipping", "unzscore", "zscore"],
        "statistics.summaries": ["get_val_stats", "mp_wrapper"],
    },
)
