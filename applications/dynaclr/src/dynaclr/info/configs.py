"""YAML files: what `dynaclr info` says of experiments, and of the configuration of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynaclr.info.description import Describer, Description
from viscy_data.errors import InputError
from viscy_data.yaml_reading import read_yaml
from viscy_utils.reports.tables import ReportTable

__all__ = ["CONFIG", "EXPERIMENTS"]


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.suffix.lower() not in (".yml", ".yaml"):
        return {}
    try:
        content = read_yaml(path)
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}


def _describe_experiments(path: Path) -> Description:
    from dynaclr.experiment import ExperimentRegistry

    registry = ExperimentRegistry.from_yaml(path, training_channels="all")
    rows = [
        [own.name, str(len(registry.fovs[own.name])), f"{own.interval_minutes:g}", ", ".join(own.condition_wells or {})]
        for own in registry.experiments
    ]
    table = ReportTable("", ["experiment", "FOVs", "minutes per frame", "conditions"], rows)
    facts = {"experiments": len(registry.experiments)}
    return Description("experiments", facts, (table,), (f"dynaclr build-index {path} INDEX.parquet",))


def _describe_config(path: Path) -> Description:
    content = _content(path)
    facts = {name: _class_of(content[name]) for name in ("model", "data") if name in content}
    steps = (f"dynaclr inspect-batches -c {path}", f"dynaclr fit --config {path}")
    return Description("a configuration", facts, (), steps)


def _class_of(block: Any) -> str:
    return str(block.get("class_path", "no class_path")) if isinstance(block, dict) else repr(block)


EXPERIMENTS = Describer("experiments", lambda path: "experiments" in _content(path), _describe_experiments)
CONFIG = Describer("a configuration", lambda path: bool({"model", "data"} & set(_content(path))), _describe_config)
