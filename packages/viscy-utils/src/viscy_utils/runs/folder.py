"""Run folders: where a training keeps everything that belongs to it, and how later commands find it.

``runs/<name>/`` holds ``run.json`` (the record), ``config.yaml``, ``train.log`` and ``checkpoints/`` with ``best.ckpt``
and ``last.ckpt``. A run never writes into the folder of another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from viscy_data.checks import near_matches
from viscy_data.errors import InputError, MissingInputError
from viscy_data.files import replacing
from viscy_data.schema import refuse_newer, written_by

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "LATEST",
    "RECORD",
    "RUNS",
    "SCHEMA",
    "Run",
    "claim_folder",
    "find_run",
    "place_in",
    "read_run",
    "run_around",
    "update_record",
]

RUNS, RECORD, CONFIG, CHECKPOINTS = "runs", "run.json", "config.yaml", "checkpoints"
LATEST = "latest"
SCHEMA = 1
"""Version of the layout of the record of a run, its entry ``schema``."""


@dataclass(frozen=True)
class Run:
    """A run that has taken place.

    Parameters
    ----------
    path : Path
        Its folder.
    record : mapping, optional
        What ``run.json`` says; empty for the folder of an older version, or of another program.
    """

    path: Path
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        """The resolved configuration; of a run that has gone on, that of its last part."""
        return self.path / self.record.get("config", CONFIG)


def folder_of(name: str, root: str | Path = ".") -> Path:
    """Return the folder that a name or a path means: a name is one below ``<root>/runs``."""
    return Path(name) if len(Path(name).parts) > 1 or Path(name).is_absolute() else Path(root) / RUNS / name


def claim_folder(name: str | None, root: str | Path = ".") -> Path:
    """Make the folder of a new run.

    Parameters
    ----------
    name : str, optional
        A name, or a path; date and time by default.
    root : str or Path, default "."
        Folder of ``runs``.

    Returns
    -------
    Path
        An empty folder that belongs to this process.

    Raises
    ------
    InputError
        If there is something at ``name``.
    """
    if name == LATEST:
        raise InputError("run", found=repr(LATEST), expected="a name of its own: latest means the newest run")
    wanted = folder_of(name or f"{datetime.now():%Y%m%d-%H%M%S}", root)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    folder, number = wanted, 1
    while True:
        try:
            folder.mkdir()
        except FileExistsError as err:
            if name:
                remedy = f"give the new run a name of its own, or continue this one with --run {name} --ckpt_path last"
                raise InputError(str(folder), field="run", found="another run", fix=remedy) from err
            number += 1  # another run that began in the same second
            folder = wanted.with_name(f"{wanted.name}-{number}")
        else:
            return folder


def find_run(name: str, root: str | Path = ".") -> Run:
    """Find a run.

    Parameters
    ----------
    name : str
        Its name, its folder, or ``latest``: the one of ``<root>/runs`` that was begun last.
    root : str or Path, default "."
        Folder of ``runs``.

    Raises
    ------
    InputError
        If there is no such run.
    """
    runs = sorted((read_run(path.parent) for path in Path(root, RUNS).glob(f"*/{RECORD}")), key=_start_of)
    if name == LATEST:
        if not runs:
            raise MissingInputError(str(Path(root, RUNS)), field="run", found="no run", fix="train one with fit")
        return runs[-1]
    folder = folder_of(name, root)
    if folder.is_dir():
        return read_run(folder)
    known = near_matches(folder.name, [run.path.name for run in runs], otherwise="name one of its runs, or latest")
    raise MissingInputError(str(folder), field="run", found="no such folder", fix=known)


def read_run(folder: Path) -> Run:
    """Read the record of a run; a folder without one is a run without a record."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        record = {}
    except ValueError as err:
        raise InputError(str(folder / RECORD), found=f"no JSON ({err})", expected="the record of a run") from err
    if not isinstance(record, dict) or not _names_files(record.get("checkpoints", {})):
        found = "a record of something else"
        raise InputError(str(folder / RECORD), field="checkpoints", found=found, expected="lists of files by kind")
    if record:
        layout = record.get("schema", 1)  # runs of the first versions do not say
        refuse_newer(str(folder / RECORD), layout, SCHEMA, "viscy-utils", record.get("written_by"), field="schema")
    return Run(folder, record)


def run_around(path: str | Path) -> Run | None:
    """Find the run that a checkpoint lies in; None where there is none."""
    above = list(Path(path).resolve().parents)[:2]
    folder = next((folder for folder in above if (folder / RECORD).is_file()), None)
    return None if folder is None else read_run(folder)


def _names_files(checkpoints: Any) -> bool:
    """Tell whether an entry is lists of files by what they are."""
    return isinstance(checkpoints, dict) and all(
        isinstance(paths, list) and all(isinstance(path, str) for path in paths) for paths in checkpoints.values()
    )


def update_record(folder: Path, **entries: Any) -> None:
    """Add entries to the record of a run, or replace them."""
    record = {"schema": SCHEMA, "written_by": written_by("viscy-utils"), **read_run(folder).record, **entries}
    with replacing(folder / RECORD, overwrite=True) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def place_in(folder: Path, path: str | Path) -> str:
    """Name a file of a run by its place in the folder, so that the folder can be moved; others by their full path."""
    full, folder = Path(path).resolve(), folder.resolve()
    return str(full.relative_to(folder)) if full.is_relative_to(folder) else str(full)


def _start_of(run: Run) -> tuple[str, str]:
    return str(run.record.get("started", "")), run.path.name
