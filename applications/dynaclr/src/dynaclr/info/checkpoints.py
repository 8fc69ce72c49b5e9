"""Checkpoints: what `dynaclr info` says of one. It is read as plain data; nothing in it is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynaclr.info.description import Describer, Description
from viscy_data.errors import InputError
from viscy_data.yaml_reading import read_mapping
from viscy_utils.runs.folder import Run, run_around

__all__ = ["CHECKPOINT", "model_settings"]

_NO_BACKBONE = "not in the file, nor in a run folder around it"
_SUFFIXES = (".ckpt", ".pt", ".pth")


def model_settings(run: Run) -> dict[str, Any]:
    """Return the settings of the model of a run, by dotted names, as its configuration has them."""
    try:
        model = read_mapping(run.config).get("model") or {}
    except InputError:
        return {}
    return dict(_flat(model, ""))


def _flat(value: Any, name: str) -> list[tuple[str, Any]]:
    """List the values of nested mappings; ``init_args`` is left out of the names, and so are values of None."""
    if isinstance(value, Mapping):
        inner = {key: name if key == "init_args" else f"{name}.{key}".lstrip(".") for key in value}
        return [pair for key, own in value.items() for pair in _flat(own, inner[key])]
    return [] if value is None else [(name, value)]


def _describe(path: Path) -> Description:
    from viscy_utils.runs.compatibility import read_checkpoint

    content = read_checkpoint(path)
    sizes = [own.numel() for own in content["state_dict"].values() if hasattr(own, "numel")]
    saved = {key: value for key, value in (content.get("hyper_parameters") or {}).items() if key != "_instantiator"}
    run = run_around(path)
    settings = (model_settings(run) if run else {}) or dict(_flat(saved, ""))
    versions = (run.record.get("versions") if run else None) or {
        "lightning": content.get("pytorch-lightning_version", "unknown")
    }
    facts = {
        "model": saved.get("_class_path") or settings.get("class_path") or "not recorded",
        "backbone": [str(value) for name, value in settings.items() if name.endswith("backbone")] or _NO_BACKBONE,
        "parameters": f"{sum(sizes):,} in {len(sizes)} tensors",
        "epoch (from 0)": content.get("epoch"),
        "step": content.get("global_step"),
        "run": str(run.path) if run else "none",
        "settings": [f"{name}: {value}" for name, value in settings.items()],
        "versions": [f"{name} {version}" for name, version in versions.items()],
    }
    config = run.config if run else "CONFIG.yml"
    return Description("a checkpoint", facts, (), (f"dynaclr predict --config {config} --ckpt_path {path}",))


CHECKPOINT = Describer("a checkpoint", lambda path: path.is_file() and path.suffix.lower() in _SUFFIXES, _describe)
