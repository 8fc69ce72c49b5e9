"""Load weights from a file: strictly, safely, and with a report that can be acted upon.

>>> load_weights(encoder, "last.ckpt")  # doctest: +SKIP
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

__all__ = ["load_weights"]

_logger = logging.getLogger(__name__)
_PREFIX = "model."
_COMPILED = "_orig_mod."  # what torch.compile puts into names
_SHOWN = 8


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill a model with the weights of a file, all of them or none.

    Parameters
    ----------
    model : torch.nn.Module
        Modified in place; untouched when the file does not fit.
    path : str or Path
        A Lightning checkpoint (its ``state_dict`` is used), a saved state dict, or a ``.safetensors`` file. Weights
        of a Lightning module's ``model`` attribute lose that prefix, and those of a compiled model its mark; what else
        the checkpoint holds (a loss, a metric) is left out and logged.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds anything but weights and plain values, or its keys or shapes are not the model's: the message
        lists what is missing, unexpected and of another shape.

    Notes
    -----
    Nothing in the file is executed: pickles are read with ``weights_only=True``.
    """
    path = Path(path)
    state = _match_prefix(_read_state_dict(path), model.state_dict())
    problems = _compare(model.state_dict(), state)
    if problems:
        raise ValueError("\n".join([f"{path} does not fit {type(model).__name__}:", *problems]))
    model.load_state_dict(state, strict=True)


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    content = _read(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict, expected names with tensors, or such under 'state_dict'")
    return {str(key).replace(_COMPILED, ""): value for key, value in state.items()}


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, SafetensorError) as err:
        raise ValueError(
            f"{path} cannot be read as weights: it is damaged or holds objects that would have to be executed; "
            "save the state dict alone, or as .safetensors"
        ) from err


def _match_prefix(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix of a Lightning module when that explains more of the keys than leaving it does."""
    stripped = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    if len(stripped.keys() & wanted.keys()) <= len(state.keys() & wanted.keys()):
        return state
    others = sorted(key for key in state if not key.startswith(_PREFIX))
    if others:
        _logger.info("left out %d entries outside of %r: %s", len(others), _PREFIX, _shorten(others))
    return stripped


def _compare(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    shapes = [
        f"{key} {tuple(found[key].shape)} for {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in found and found[key].shape != value.shape
    ]
    groups = (
        ("missing from the file", [key for key in wanted if key not in found]),
        ("unexpected in the file", [key for key in found if key not in wanted]),
        ("of another shape (file for model)", shapes),
    )
    return [f"  {len(names)} {title}: {_shorten(names)}" for title, names in groups if names]


def _shorten(names: list[str]) -> str:
    rest = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
