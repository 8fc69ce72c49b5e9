"""What embeddings come from: written beside them, and compared before an interrupted prediction goes on.

>>> read_origin("embeddings.zarr")["checkpoint"]["path"]  # doctest: +SKIP
'runs/20240502-101500/checkpoints/best.ckpt'
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import zarr
from lightning.pytorch import LightningModule, Trainer

from viscy_utils.embeddings.kind import ORIGIN, ORIGIN_SCHEMA, refuse_later
from viscy_utils.reports.files import json_line
from viscy_utils.runs.compatibility import read_checkpoint
from viscy_utils.runs.versions import package_versions

__all__ = ["ORIGIN", "computed_origin", "manifest_of", "origin_as_uns", "prediction_origin", "read_origin"]

_PARTS_SCHEMA = 2
_AS_JSON = ("data", "options", "prediction")  # their keys may be paths, which no zarr group may be called
_BLOCK_BYTES = 2**22


def prediction_origin(trainer: Trainer, pl_module: LightningModule, options: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a prediction.

    Parameters
    ----------
    trainer : Trainer
        While it predicts.
    pl_module : LightningModule
        Its weights count where there is no checkpoint.
    options : mapping
        Plain values that decide what is written.

    Returns
    -------
    dict
        Plain values: ``schema``, ``date`` (``SOURCE_DATE_EPOCH`` of the environment where it is set), ``command``,
        ``config`` (YAML; empty outside of the command line),
        ``checkpoint`` (``path``, ``blake2b``, ``epoch``, ``step``; or ``weights``, a digest, where no file was used),
        ``model`` (class), ``versions``, ``data`` (``data_record()`` of the data module; None if it has none),
        ``options``, ``world_size``; ``prediction``, where the module has a ``prediction_record()`` that says something.
    """
    describe = getattr(getattr(trainer, "datamodule", None), "data_record", None)
    return computed_origin(
        f"{type(pl_module).__module__}.{type(pl_module).__qualname__}",
        _checkpoint_of(trainer, pl_module),
        None if describe is None else describe(),
        config=getattr(trainer, "resolved_config", ""),
        options=options,
        world_size=trainer.world_size,
        prediction=getattr(pl_module, "prediction_record", dict)(),
    )


def computed_origin(
    model: str,
    checkpoint: Mapping[str, Any],
    data: Mapping[str, Any] | None,
    *,
    config: str = "",
    options: Mapping[str, Any] | None = None,
    world_size: int = 1,
    prediction: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe rows that were computed here and now, as :func:`prediction_origin` does those of a network.

    Parameters
    ----------
    model : str
        What computes them.
    checkpoint, data, config, options, world_size, prediction
        Entries of what is returned.
    """
    return {
        "schema": ORIGIN_SCHEMA,
        "date": _now().isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "config": config,
        "checkpoint": dict(checkpoint),
        "model": model,
        "versions": package_versions(),
        "data": data,
        "options": dict(options or {}),
        "world_size": world_size,
        **({"prediction": dict(prediction)} if prediction else {}),
    }


def manifest_of(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Take from an origin what decides the rows: only a prediction of the same manifest goes on.

    Returns
    -------
    dict
        ``schema``, ``model`` (class and digest of the weights), ``data`` (digest; None if nothing is known of the
        data) and ``world_size``; ``prediction`` (digest), where the module says how it predicts.
    """
    checkpoint, data = origin["checkpoint"], origin["data"]
    weights = checkpoint.get("blake2b") or checkpoint.get("weights")
    return {
        "schema": _PARTS_SCHEMA,
        "model": f"{origin['model']}, weights {weights}",
        "data": None if data is None else _digest(data),
        "world_size": origin["world_size"],
        **({"prediction": _digest(origin["prediction"])} if "prediction" in origin else {}),
    }


def origin_as_uns(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Bring an origin into the form that AnnData stores: texts, numbers and mappings."""
    return {key: json_line(value).rstrip() if key in _AS_JSON else value for key, value in origin.items()}


def read_origin(path: str | Path) -> dict[str, Any] | None:
    """Read the origin of stored embeddings.

    Parameters
    ----------
    path : str or Path
        AnnData zarr store.

    Returns
    -------
    dict or None
        As from :func:`prediction_origin`; None for embeddings that do not say where they come from.
    """
    from viscy_utils.embeddings.store import import_anndata

    refuse_later(path)
    uns = zarr.open_group(path, mode="r", use_consolidated=False).get("uns")
    if uns is None or ORIGIN not in uns:
        return None
    stored = import_anndata().io.read_elem(uns[ORIGIN])
    return {key: json.loads(value) if key in _AS_JSON else value for key, value in stored.items()}


def _now() -> datetime:
    """Return the time; with ``SOURCE_DATE_EPOCH`` it stands still, so that equal runs write equal bytes."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(fixed), UTC) if fixed else datetime.now().astimezone()


def _checkpoint_of(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    path = Path(str(trainer.ckpt_path)) if trainer.ckpt_path else None
    if path is None or not path.is_file():
        return {"path": str(path or ""), "weights": _weights_digest(pl_module)}
    content = read_checkpoint(path)
    place = {"epoch": content.get("epoch"), "step": content.get("global_step")}
    digest = {"path": str(path.resolve()), "blake2b": _file_digest(path)}
    return digest | {key: int(value) for key, value in place.items() if value is not None}


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _file_digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _weights_digest(module: torch.nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
