"""Whether a checkpoint fits a model, said in a few words before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from viscy_data.checks import is_count
from viscy_data.errors import InputError
from viscy_data.files import missing_path
from viscy_utils.cli.subcommands import CORRECT_CHECKPOINT
from viscy_utils.runs.folder import run_around
from viscy_utils.runs.torch_file import check_torch_file
from viscy_utils.training.layout import refuse_newer_checkpoint

__all__ = ["changed_settings", "differing_settings", "load_weights", "read_checkpoint"]

_MOST_LISTED = 8
_MOST_VALUES = 100_000
_OF_SHARDED = (".metadata", "meta.pt", "latest", "checkpoint")  # in folders written by FSDP and DeepSpeed


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a Lightning checkpoint; plain types and tensors only, which stay on disk until they are used.

    Returns
    -------
    dict
        Empty for a folder: a sharded checkpoint, which its strategy reads.

    Raises
    ------
    InputError
        If there is none, the file is no checkpoint, or one of a later version.
    """
    path = Path(path)
    if not path.exists():
        raise missing_path(path, field="ckpt_path", fix=CORRECT_CHECKPOINT)
    expected = "a Lightning checkpoint that torch.load reads with weights_only=True"
    if path.is_dir():
        if any((path / name).exists() for name in _OF_SHARDED):
            return {}
        fix = "name the file in it, or the folder of a run with --run"
        raise InputError(str(path), field="ckpt_path", found="a folder", expected=expected, fix=fix)
    try:
        check_torch_file(path)
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as err:
        why = err if isinstance(err, UnpicklingError) else type(err).__name__
        found = f"a file that torch cannot read ({str(why).splitlines()[0]})"
        raise InputError(str(path), field="ckpt_path", found=found, expected=expected) from err
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError(str(path), field="ckpt_path", found="no state_dict", expected=expected)
    refuse_newer_checkpoint(checkpoint, str(path))
    _check_settings(checkpoint.get("hyper_parameters"), path)
    for name in ("epoch", "global_step"):
        if not is_count(checkpoint.get(name, 0)):
            found = repr(checkpoint[name])
            raise InputError(str(path), field=name, found=found, expected="a whole number of at least 0")
    weights = checkpoint["state_dict"]
    if not isinstance(weights, dict):
        raise InputError(str(path), field="state_dict", found="no weights by name", expected=expected)
    if wrong := [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]:
        raise InputError(str(path), field=f"state_dict, {wrong[0]}", found="no tensor", expected=expected)
    return checkpoint


def differing_settings(checkpoint: Mapping[str, Any], written: Mapping[str, Any]) -> list[str]:
    """Compare the settings that a checkpoint was trained with to those of a configuration.

    Parameters
    ----------
    checkpoint : mapping
        With the entry ``hyper_parameters``, as Lightning's command line saves them.
    written : mapping
        The block ``model``: ``class_path`` and ``init_args``.

    Returns
    -------
    list of str
        One entry, such as ``encoder.backbone 'resnet50' -> 'convnext_tiny'``, for each setting that both name.
    """
    saved = {key: value for key, value in (checkpoint.get("hyper_parameters") or {}).items() if key != "_instantiator"}
    if "_class_path" in saved:
        saved["class_path"] = saved.pop("_class_path")
    now = {**(written.get("init_args") or {}), "class_path": written.get("class_path")}
    return list(_differences(saved, now))


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Compare two configurations; a setting that one of them leaves out counts as None there.

    Returns
    -------
    list of str
        One entry, such as ``data.batch_size 64 -> 32``, for each setting that differs; cut where it is long.
    """
    return [_cut(text) for text in _differences(before, now, in_either=True)]


def load_weights(
    model: torch.nn.Module, checkpoint: Mapping[str, Any], path: str | Path, differing: Sequence[str] = ()
) -> None:
    """Fill a model with the weights of a checkpoint.

    Parameters
    ----------
    model : Module
    checkpoint : mapping
        As from :func:`read_checkpoint`.
    path : str or Path
        Named in the message.
    differing : sequence of str, optional
        As from :func:`differing_settings`: the likely reason where weights do not fit.

    Raises
    ------
    InputError
        If they do not fit.
    """
    try:
        model.load_state_dict(checkpoint["state_dict"], strict=getattr(model, "strict_loading", True))
    except RuntimeError as err:  # torch has one line in its message for every parameter that does not fit
        misfits = _misfits(model, checkpoint["state_dict"])
        told = err.found if isinstance(err, InputError) else f"weights of another {type(model).__name__}: {misfits}"
        raise InputError(
            str(path),
            field="ckpt_path",
            found="; ".join([told, f"settings that differ: {_listed(differing)}"] if differing else [told]),
            expected=f"weights of the {type(model).__name__} of the configuration",
            fix="set in the configuration what the checkpoint was trained with"
            f"{_where_to_look(path)}, or name another checkpoint",
        ) from err


def _where_to_look(path: str | Path | None) -> str:
    """Name the configuration of the run that a checkpoint lies in."""
    run = None if path is None else run_around(path)
    return f" ({run.config})" if run is not None and run.config.is_file() else ""


def _check_settings(settings: Any, path: Path) -> None:
    """Refuse settings without names, or in each other so often, or without an end, that they cannot be shown."""
    counted: dict[int, float] = {}  # with all that is inside; infinite while that is being counted

    def count(value: Any) -> float:
        if not isinstance(value, Mapping | list | tuple | set):
            return 1
        if id(value) not in counted:
            counted[id(value)] = math.inf
            inside = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
            counted[id(value)] = 1 + sum(map(count, inside))
        return counted[id(value)]

    try:
        if count(settings) > _MOST_VALUES:
            found = f"more than {_MOST_VALUES:,} values in each other"
        elif settings and not isinstance(settings, Mapping):
            found = "no values by name"
        else:
            return
    except RecursionError:
        found = "values in each other, hundreds deep"
    raise InputError(str(path), field="hyper_parameters", found=found, expected="the settings of a model")


def _misfits(model: torch.nn.Module, weights: Mapping[str, Any]) -> str:
    """Count the parameters that do not fit, with an example of each kind."""
    saved = {name: tuple(value.shape) for name, value in weights.items() if hasattr(value, "shape")}
    now = {name: tuple(value.shape) for name, value in model.state_dict().items() if hasattr(value, "shape")}
    sizes = [f"{name} {saved[name]} instead of {now[name]}" for name in now if saved.get(name, now[name]) != now[name]]
    kinds = {
        "size mismatch of": sizes,
        "without": sorted(now.keys() - saved.keys()),
        "too many by": sorted(saved.keys() - now.keys()),
    }
    return "; ".join(f"{kind} {len(names)}, such as {names[0]}" for kind, names in kinds.items() if names)


def _differences(saved: Any, now: Any, at: str = "", *, in_either: bool = False) -> Iterator[str]:
    """Walk down both to the values that differ; ``init_args`` is left out of the names."""
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*saved, *now]) if in_either else [key for key in saved if key in now]:
            name = at if key == "init_args" else f"{at}.{key}" if at else str(key)
            yield from _differences(saved.get(key), now.get(key), name, in_either=in_either)
    elif _plain(saved) != _plain(now):
        yield f"{at} {saved!r} -> {now!r}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else str(value) if isinstance(value, Path) else value


def _listed(differing: Sequence[str]) -> str:
    cut = [_cut(text) for text in differing[:_MOST_LISTED]]
    more = [f"and {len(differing) - _MOST_LISTED} more"] if len(differing) > _MOST_LISTED else []
    return "; ".join(cut + more)


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
