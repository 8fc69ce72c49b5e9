"""Run folders: what `dynaclr info` says of one."""

from __future__ import annotations

from pathlib import Path

from dynaclr.info.checkpoints import model_settings
from dynaclr.info.description import Describer, Description
from viscy_utils.runs.folder import RECORD, read_run

__all__ = ["RUN"]


def _describe(path: Path) -> Description:
    run = read_run(path)
    record, settings = run.record, model_settings(run)
    checkpoints = record.get("checkpoints", {})
    error = f": {record['error']}" if record.get("error") else ""
    facts = {
        "status": f"{record.get('status', 'unknown')}{error}",
        "started": record.get("started"),
        "ended": record.get("ended"),
        "steps": record.get("steps"),
        "command": record.get("command"),
        "checkpoints": [f"{kind}: {path / name}" for kind, names in checkpoints.items() for name in names],
        "predictions": [str(path / name) for name in record.get("predictions", [])],
        "model": [f"{name}: {value}" for name, value in settings.items()],
        "versions": [f"{name} {version}" for name, version in record.get("versions", {}).items()],
    }
    if record.get("status") == "finished":
        steps = [f"dynaclr predict --config {run.config} --run {path}"]
    else:
        steps = [f"dynaclr fit --config {run.config} --run {path} --ckpt_path last"]
    if record.get("predictions"):
        steps.append(f"dynaclr evaluate --run {path} --output-dir report")
    return Description("a run folder", facts, (), tuple(steps))


RUN = Describer("a run folder", lambda path: path.is_dir() and (path / RECORD).is_file(), _describe)
