"""What training and evaluation share: command line, trainer, callbacks, normalisation statistics, embeddings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from viscy_utils.pictures.log_images import detach_sample, render_images
    from viscy_utils.statistics.normalize import hist_clipping, unzscore, zscore
    from viscy_utils.statistics.summaries import get_val_stats, mp_wrapper

__all__ = [
    "detach_sample",
    "get_val_stats",
    "hist_clipping",
    "mp_wrapper",
    "render_images",
    "unzscore",
    "zscore",
]

_MODULES = {
    "detach_sample": "pictures.log_images",
    "get_val_stats": "statistics.summaries",
    "hist_clipping": "statistics.normalize",
    "mp_wrapper": "statistics.summaries",
    "render_images": "pictures.log_images",
    "unzscore": "statistics.normalize",
    "zscore": "statistics.normalize",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"viscy_utils.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
