"""Files that other programs go on with: exported models, statistics beside a store, stacks of arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dynaclr.info.description import Describer, Description
from viscy_data.cache import readable_size
from viscy_data.errors import reading_file

__all__ = ["ARRAY_STACK", "EXPORTED_MODEL", "STATISTICS"]


def _describe_model(path: Path) -> Description:
    facts = {"size": readable_size(path.stat().st_size)}
    step = f"onnxruntime.InferenceSession('{path}'); it takes images normalised as in training"
    return Description("an exported model (ONNX)", facts, (), (step,))


def _statistics(path: Path) -> dict[str, Any]:
    """Return the content of a file of statistics; empty for another."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(content, dict) and all(isinstance(content.get(key), dict) for key in ("plate", "fovs"))
    return content if is_ours else {}


def _describe_statistics(path: Path) -> Description:
    content = _statistics(path)
    fovs = content["fovs"]
    levels = {level for own in fovs.values() for channel in own.values() for level in channel}
    facts = {
        "channels": sorted({channel for own in (content["plate"], *fovs.values()) for channel in own}),
        "levels": sorted(levels),
        "FOVs": f"{len(fovs)}: {', '.join(list(fovs)[:3])}{' ...' if len(fovs) > 3 else ''}",
    }
    step = f"in experiments.yml, beside data_path: normalization_path: {path}"
    return Description("normalisation statistics", facts, (), (step,))


def _describe_stack(path: Path) -> Description:
    pieces = sorted(path.glob("[0-9]*.npy"))
    with reading_file(pieces[0], "an array", "write the stack anew with precompute"):
        first = np.load(pieces[0], mmap_mode="r", allow_pickle=False)
        facts = {"arrays": len(pieces), "shape of each": " ".join(map(str, first.shape)), "dtype": str(first.dtype)}
    return Description("a stack of arrays (precompute)", facts, (), (f"dask.array.from_npy_stack('{path}')",))


EXPORTED_MODEL = Describer(
    "an exported model", lambda path: path.is_file() and path.suffix.lower() == ".onnx", _describe_model
)
STATISTICS = Describer("normalisation statistics", lambda path: bool(_statistics(path)), _describe_statistics)
ARRAY_STACK = Describer(
    "a stack of arrays", lambda path: (path / "0.npy").is_file() and (path / "info").is_file(), _describe_stack
)
