"""What training and evaluation share: command line, trainer, callbacks, normalisation statistics, embeddings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from viscy_utils.log_images import detach_sample, render_images
    from viscy_utils.mp_utils import get_val_stats, mp_wrapper
    from viscy_utils.normalize import hist_clipping, unzscore, zscore

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
    "detach_sample": "log_images",
    "get_val_stats": "mp_utils",
    "hist_clipping": "normalize",
    "mp_wrapper": "mp_utils",
    "render_images": "log_images",
    "unzscore": "normalize",
    "zscore": "normalize",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"viscy_utils.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
