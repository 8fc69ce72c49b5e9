"""What a prediction depends on, so that an interrupted one is only continued by its like."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

__all__ = ["prediction_manifest"]

# Settings of a data module that change how it works and not what it yields.
_SPEED_SETTINGS = frozenset(
    {"num_workers", "buffer_size", "pin_memory", "prefetch_factor", "cache_pool_bytes", "persistent_workers"}
)


def prediction_manifest(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Describe model, data and world of a prediction.

    Parameters
    ----------
    trainer : Trainer
        While it predicts.
    pl_module : LightningModule
        Its weights count where there is no checkpoint.

    Returns
    -------
    dict
        Plain values: ``schema``, ``model`` (checkpoint with size and time of change, or a digest of the weights),
        ``data`` (digest of the data module's hyperparameters), ``world_size``.
    """
    checkpoint = trainer.ckpt_path
    if checkpoint and Path(str(checkpoint)).exists():
        stat = Path(str(checkpoint)).stat()
        model = f"{Path(str(checkpoint)).resolve()}, {stat.st_size} bytes, mtime {stat.st_mtime_ns}"
    else:
        model = f"weights {_weights_digest(pl_module)}"
    data = _settings_digest(getattr(getattr(trainer, "datamodule", None), "hparams", {}))
    return {"schema": 1, "model": model, "data": data, "world_size": trainer.world_size}


def _weights_digest(module: torch.nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _settings_digest(settings: Any) -> str:
    kept = {key: value for key, value in dict(settings).items() if key not in _SPEED_SETTINGS}
    text = json.dumps(kept, sort_keys=True, default=_plain)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: Any) -> str:
    """Name a setting that is no JSON value; an object counts by its type, since its address would change."""
    return str(value) if isinstance(value, Path | np.generic) else type(value).__qualname__
