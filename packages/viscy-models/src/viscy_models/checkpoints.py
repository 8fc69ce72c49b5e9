"""Load weights from a file: strictly, safely, and with a report that can be acted upon.

>>> load_weights(encoder, "last.ckpt")  # doctest: +SKIP
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from viscy_models.architecture import describe
from viscy_models.torch_file import check_torch_file

__all__ = ["fill", "load_weights", "mismatches", "read_state_dict", "uncompiled", "under"]

_logger = logging.getLogger(__name__)
_PREFIX = "model."
_COMPILED = "_orig_mod."  # what torch.compile puts into names
_SHOWN, _SHOWN_CHARACTERS = 8, 110


def load_weights(model: nn.Module, path: str | Path, part: str = "") -> None:
    """Fill a model with the weights of a file, all of them or none.

    Parameters
    ----------
    model : torch.nn.Module
        Modified in place; untouched when the file does not fit. It may be compiled.
    path : str or Path
        A Lightning checkpoint (its ``state_dict`` is used), a saved state dict, or a ``.safetensors`` file. Weights
        of a Lightning module's ``model`` attribute lose that prefix, and those of a compiled model its mark; what else
        the checkpoint holds (a loss, a metric) is left out and logged.
    part : str, default ""
        Take only this module of the network in the file, such as ``encoder``, and its names without it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds anything but weights and plain values, or its keys or shapes are not the model's: the message
        says what backbones these are of, in what settings they differ, and what is missing, unexpected and of another
        shape.

    Notes
    -----
    Nothing in the file is executed: pickles are read with ``weights_only=True``, once the sizes that they declare were
    found to be those of the file.
    """
    path = Path(path)
    state = read_state_dict(path)
    if part:
        state = _part_of(state, part, path)
    else:
        state = _match_prefix(state, {uncompiled(name) for name in model.state_dict()})
    fill(model, state, path)


def fill(model: nn.Module, state: Mapping[str, Tensor], path: Path, what: str = "") -> None:
    """Fill a model with weights by name, all of them or none.

    Parameters
    ----------
    model : torch.nn.Module
        Modified in place; untouched when the weights do not fit. It may be compiled.
    state : mapping of str to Tensor
        Weights without marks of compilation.
    path : Path
        Where they are from, for the message.
    what : str, default ""
        What the model is, for the message; its class by default.

    Raises
    ------
    ValueError
        If names or shapes are not the model's.
    """
    names = {uncompiled(name): name for name in model.state_dict()}
    problems = mismatches({uncompiled(name): value for name, value in model.state_dict().items()}, state)
    if problems:
        raise ValueError("\n".join([f"{path} does not fit {what or type(model).__name__}:", *problems]))
    model.load_state_dict({names[name]: value for name, value in state.items()}, strict=True)


def uncompiled(name: str) -> str:
    """Return the name of a weight without the mark of `torch.compile`."""
    return name.replace(_COMPILED, "")


def read_state_dict(path: Path, wrapper: str = "state_dict") -> dict[str, Tensor]:
    """Read the weights of a file, see :func:`load_weights`, by names without marks of compilation.

    Parameters
    ----------
    path : Path
    wrapper : str, default "state_dict"
        The entry of the file that holds the weights, unless they are the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds anything but weights and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    content = _read(path)
    state = content.get(wrapper, content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict, expected names with tensors, or such under {wrapper!r}")
    return {uncompiled(str(key)): value for key, value in state.items()}


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        check_torch_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as err:  # torch raises whatever comes of a damaged file
        why = str(err).partition("\n")[0][:200]
        raise ValueError(
            f"{path} cannot be read as weights: it is damaged or holds objects that would have to be executed ({why}); "
            "save the state dict alone, or as .safetensors"
        ) from err


def _part_of(state: dict[str, Tensor], part: str, path: Path) -> dict[str, Tensor]:
    """Return the weights of one module of a network, in a Lightning module or not."""
    found = under(state, (f"{_PREFIX}{part}.", f"{part}."))
    if not found:
        raise ValueError(f"{path} has no weights of a {part}, only: {_shorten(sorted(state))}")
    return found


def under(state: Mapping[str, Tensor], prefixes: Iterable[str]) -> dict[str, Tensor]:
    """Return the weights under the first of the prefixes that there is, by names without it; none if there is none."""
    for prefix in prefixes:
        found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if found:
            return found
    return {}


def _match_prefix(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Strip the prefix of a Lightning module when that explains more of the keys than leaving it does."""
    stripped = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    if len(stripped.keys() & wanted) <= len(state.keys() & wanted):
        return state
    others = sorted(key for key in state if not key.startswith(_PREFIX))
    if others:
        _logger.info("left out %d entries outside of %r: %s", len(others), _PREFIX, _shorten(others))
    return stripped


def mismatches(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Say in what the weights of a file differ from those of a model, in lines that together stay under 1 kB.

    Parameters
    ----------
    wanted, found : mapping of str to Tensor
        Of the model and of the file, without marks of compilation. An empty one of the model takes any shape: it is one
        whose shape comes with the first batch.

    Returns
    -------
    list of str
        Settings of the networks that differ, as far as the weights tell, then names; empty if the weights fit.
    """
    shapes = []
    for key, value in wanted.items():
        if key in found and found[key].shape != value.shape and value.numel():
            shapes.append(f"{key} {tuple(found[key].shape)} for {tuple(value.shape)}")
    groups = (
        ("missing from the file", [key for key in wanted if key not in found]),
        ("unexpected in the file", [key for key in found if key not in wanted]),
        ("of another shape (file for model)", shapes),
    )
    lines = [f"  {len(names)} {title}: {_shorten(names)}" for title, names in groups if names]
    return [*_settings(describe(wanted), describe(found)), *lines] if lines else []


def _settings(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    names = [name for name, value in wanted.items() if found.get(name, value) != value]
    return [f"  {name}: {found[name]} in the file, {wanted[name]} in the model" for name in names]


def _shorten(names: list[str]) -> str:
    shown = names[:1]
    for name in names[1:_SHOWN]:
        if len(", ".join([*shown, name])) <= _SHOWN_CHARACTERS:
            shown.append(name)
    rest = f", and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + rest
