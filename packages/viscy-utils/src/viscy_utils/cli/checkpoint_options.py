"""What ``--run`` and ``--ckpt_path`` together mean: one checkpoint, or the folder of a training."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viscy_data.errors import InputError
from viscy_utils.cli.subcommands import LIGHTNING_WORDS, NOT_GIVEN
from viscy_utils.runs.choice import checkpoint_of, has_checkpoints, refuse_older_twin
from viscy_utils.runs.folder import LATEST, Run, find_run

__all__ = ["Training", "checkpoint_to_use", "training_of"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """Where a training writes.

    Parameters
    ----------
    name : str, optional
        Of its folder.
    goes_on : Run, optional
        The run that it continues.
    ckpt_path : str, optional
        The checkpoint that it begins with.
    """

    name: str | None = None
    goes_on: Run | None = None
    ckpt_path: str | None = None


def checkpoint_to_use(name: str | None, ckpt_path: Any, root: str | Path, subcommand: str) -> tuple[Any, Run | None]:
    """Find the one checkpoint that is asked for.

    Parameters
    ----------
    name : str, optional
        Value of ``--run``.
    ckpt_path : str, Path, optional
        Value of ``--ckpt_path``; ``NOT_GIVEN`` if it is not there.
    root : str or Path
        Folder of ``runs``.
    subcommand : str
        Named in messages.

    Returns
    -------
    checkpoint : str, optional
        None for random weights.
    run : Run, optional
        Whose it is, where a run is named.

    Raises
    ------
    InputError
        If there is none, several may be meant, or the two options contradict each other.
    """
    path = None if ckpt_path is None else str(ckpt_path)
    if name is not None:
        run = find_run(name, root)
        if path in (None, NOT_GIVEN, "best", "last"):
            return str(checkpoint_of(run, path if path in ("best", "last") else None)), run
        if Path(path).resolve().is_relative_to(run.path.resolve()):
            return path, run
        raise InputError(
            "command line and configuration",
            field="run, ckpt_path",
            found=f"run {name} and the checkpoint {path}, which is not in it",
            expected="one of the two",
            fix="leave one of them out (--run null, --ckpt_path best)",
        )
    if path == NOT_GIVEN:
        raise InputError(
            subcommand,
            field="ckpt_path",
            found="no checkpoint",
            expected="the weights to use: random ones would give results without a meaning",
            fix="add --run latest, --run NAME or --ckpt_path FILE; for random or pretrained weights, --ckpt_path null",
        )
    if path is not None and path not in LIGHTNING_WORDS and Path(path).is_file():
        refuse_older_twin(Path(path))
    return path, None


def training_of(name: str | None, ckpt_path: Any, root: str | Path, resume: bool = False) -> Training:
    """Tell a new run from one that goes on.

    Parameters
    ----------
    name : str, optional
        Value of ``--run``.
    ckpt_path : str, Path, optional
        Value of ``--ckpt_path``.
    root : str or Path
        Folder of ``runs``.
    resume : bool, default False
        Value of ``--resume``: go on with the run of that name, or with the latest, from its last whole checkpoint.
        Where there is none yet, a new one begins, so that a job may begin and go on with one command.

    Raises
    ------
    InputError
        If it is to go on from another than its last checkpoint, or nobody knows from which.
    """
    path = None if ckpt_path is None else str(ckpt_path)
    if resume and path not in (None, "last"):
        raise InputError(
            "command line and configuration",
            field="resume, ckpt_path",
            found=f"resume: true and the checkpoint {path}",
            expected="one of the two: to resume is to go on from the last whole checkpoint of a run",
            fix="leave out ckpt_path, or begin another run from it without --resume",
        )
    if resume or (name is None and path == "last"):
        return _resumed(name, root, must_exist=not resume)
    if name is None or path is None:
        return Training(name, None, path)
    if path not in ("best", "last") and not Path(path).exists():
        return Training(name, None, path)  # a missing file is reported where it is read
    run = _existing(name, root)
    if run is None:
        return Training(name, None, path)
    last = checkpoint_of(run, "newest")
    if path == "last" or (path != "best" and Path(path).resolve() == last.resolve()):
        return Training(name, run, str(last))
    raise InputError(
        str(run.path),
        field="run, ckpt_path",
        found=f"{path}, which is not its newest checkpoint",
        expected=str(last),
        fix="a run goes on with --ckpt_path last; begin another one from elsewhere by giving it a --run of its own",
    )


def _resumed(name: str | None, root: str | Path, must_exist: bool) -> Training:
    """Go on with a run from its last whole checkpoint, or from its start if it was ended before there was one."""
    run = find_run(name or LATEST, root) if must_exist else _existing(name or LATEST, root)
    if run is None:
        _logger.info("there is no run to go on with: a new one begins")
        return Training(name)
    return Training(name, run, str(checkpoint_of(run, "newest")) if has_checkpoints(run) else None)


def _existing(name: str, root: str | Path) -> Run | None:
    try:
        return find_run(name, root)
    except FileNotFoundError:
        return None
