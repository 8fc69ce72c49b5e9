"""Which checkpoint of a run is meant: said when there is one answer, refused when there are several."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from viscy_data.errors import InputError
from viscy_utils.runs.compatibility import read_checkpoint
from viscy_utils.runs.folder import CHECKPOINTS, Run

__all__ = ["checkpoint_of", "embeddings_of", "has_checkpoints", "refuse_older_twin"]

_PREFERRED = ("best", "last")

_logger = logging.getLogger(__name__)


def checkpoint_of(run: Run, which: str | None = None) -> Path:
    """Choose a checkpoint of a run.

    Parameters
    ----------
    run : Run
    which : {"best", "last", "newest"}, optional
        By default the best one; the last one where nothing says which is best. ``newest`` is the one that has been
        trained longest among those that are whole; the others are named in a warning.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If there is none, or more than one that could be meant.
    """
    files = {kind: [path for path in paths if path.exists()] for kind, paths in _files_of(run).items()}
    everything = [path for paths in files.values() for path in paths]
    if which == "newest" and has_checkpoints(run):
        return _newest_whole(run, _all_checkpoints(run))
    for kind in [which] if which else _PREFERRED:
        named = files.get(kind, [])
        if len(named) == 1:
            return named[0]
        if named:
            raise _ambiguous(run, named)
    if which is None and len(everything) == 1:
        return everything[0]
    if which is None and everything:
        raise _ambiguous(run, everything)
    found = f"no {which} checkpoint" if which in _PREFERRED else "no checkpoint"
    raise InputError(str(run.path), field="run", found=found, fix="name another run, or a file with --ckpt_path")


def has_checkpoints(run: Run) -> bool:
    """Tell a run with checkpoints from one that was ended before it had any."""
    return bool(_all_checkpoints(run))


def embeddings_of(run: Run) -> Path:
    """Find the embeddings that were predicted with a run.

    Raises
    ------
    InputError
        If there are none, or several.
    """
    recorded = [run.path / path for path in run.record.get("predictions", [])]
    found = [path for path in recorded if path.exists()]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            str(run.path),
            field="run",
            found=f"{len(found)} predictions: {', '.join(map(str, found))}",
            expected="one",
            fix="name the store with --embeddings",
        )
    fix = f"predict with it first: predict --config {run.config}"
    raise InputError(str(run.path), field="run", found="no embeddings", fix=fix)


def refuse_older_twin(path: Path) -> None:
    """Refuse ``last.ckpt`` where ``last-v1.ckpt`` beside it is newer, so that it is not clear which run is meant.

    Raises
    ------
    InputError
    """
    stem = re.escape(path.stem)
    twins = [twin for twin in path.parent.glob(f"*{path.suffix}") if re.fullmatch(rf"{stem}-v\d+", twin.stem)]
    newer = [twin for twin in twins if twin.stat().st_mtime > path.stat().st_mtime]
    if newer:
        newest = max(newer, key=lambda twin: twin.stat().st_mtime)
        raise InputError(
            str(path),
            field="ckpt_path",
            found=f"{newest.name} beside it, which is newer ({_time_of(newest)}; {path.name}: {_time_of(path)})",
            expected="one checkpoint of that name, as several runs have written into this folder",
            fix=f"name the one you mean, such as {newest}, or move the other out of the folder",
        )


def _files_of(run: Run) -> dict[str, list[Path]]:
    """List checkpoints by what they are: as recorded, or by their names."""
    recorded = run.record.get("checkpoints")
    if recorded:
        files = {kind: [run.path / path for path in paths] for kind, paths in recorded.items()}
        return files | {"cluster": sorted(run.path.glob("hpc_ckpt_*.ckpt"))}  # of a job that was to end
    files: dict[str, list[Path]] = {}
    for path in _files_in(run):
        kind = next((kind for kind in _PREFERRED if re.fullmatch(rf"{kind}(-v\d+)?", path.stem)), "other")
        files.setdefault(kind, []).append(path)
    return files


def _all_checkpoints(run: Run) -> list[Path]:
    """List what is recorded, and what was saved just before a run was killed."""
    recorded = [path for paths in _files_of(run).values() for path in paths]
    return [path for path in dict.fromkeys([*recorded, *_files_in(run)]) if path.exists()]


def _files_in(run: Run) -> list[Path]:
    return sorted({*run.path.glob("[!.]*.ckpt"), *run.path.glob(f"{CHECKPOINTS}/[!.]*.ckpt")})


def _newest_whole(run: Run, paths: Sequence[Path]) -> Path:
    """Take the one that has been trained longest, whatever copying has made of the times of the files."""
    found, broken = [], []
    for path in paths:
        try:
            found.append((read_checkpoint(path).get("global_step", -1), path.stat().st_mtime_ns, path))
        except InputError as err:
            broken.append(f"{path} ({err.found})")
    whole = next((path for *_, path in sorted(found, reverse=True) if not _is_damaged(path, broken)), None)
    if broken:
        _logger.warning("checkpoints that are not whole are passed over: %s", "; ".join(broken))
    if whole is None:
        found = f"no checkpoint that is whole: {'; '.join(broken)}"
        raise InputError(
            str(run.path), field="run", found=found, fix="name a checkpoint of another run with --ckpt_path"
        )
    return whole


def _is_damaged(path: Path, broken: list[str]) -> bool:
    """Read a file from end to end and compare its check sums, as the disk may have kept only part of it."""
    if not zipfile.is_zipfile(path):  # a folder, or the format of torch before 1.6, which has none
        return False
    with zipfile.ZipFile(path) as file:
        try:
            bad = file.testzip()
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as err:
            bad = str(err)
    if bad is not None:
        broken.append(f"{path} (damaged: {bad})")
    return bad is not None


def _ambiguous(run: Run, paths: list[Path]) -> InputError:
    listed = "; ".join(f"{path} ({_time_of(path)})" for path in paths[:6])
    found = f"{len(paths)} checkpoints: {listed}"
    return InputError(str(run.path), field="run", found=found, expected="one", fix="name the file with --ckpt_path")


def _time_of(path: Path) -> str:
    return f"{datetime.fromtimestamp(path.stat().st_mtime):%Y-%m-%d %H:%M:%S}"
