"""Which kinds of things are known. A new kind is a describer in a module of its own, and a row here."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from dynaclr.info.atlases import ATLAS
from dynaclr.info.checkpoints import CHECKPOINT
from dynaclr.info.classifiers import CLASSIFIER
from dynaclr.info.configs import CONFIG, EXPERIMENTS
from dynaclr.info.corrections import CORRECTION
from dynaclr.info.description import Describer, Description
from dynaclr.info.embeddings import EMBEDDINGS
from dynaclr.info.images import IMAGES
from dynaclr.info.index_files import INDEX
from dynaclr.info.labels import LABELS
from dynaclr.info.outputs import ARRAY_STACK, EXPORTED_MODEL, STATISTICS
from dynaclr.info.patch_stores import PATCH_STORE
from dynaclr.info.plates import PLATE
from dynaclr.info.reports import PART, REPORT
from dynaclr.info.runs import RUN
from dynaclr.info.tracks import TRACKS, TRACKS_FOLDER
from viscy_data.errors import InputError
from viscy_data.files import missing_path

__all__ = ["DESCRIBERS", "describe"]

_MOST_TRIED, _MOST_NAMED = 100, 4  # entries of a folder
_COMMANDS = ("dynaclr ", "uvx ")

DESCRIBERS: tuple[Describer, ...] = (
    RUN,
    REPORT,
    PLATE,
    PATCH_STORE,
    EMBEDDINGS,
    CHECKPOINT,
    INDEX,
    ATLAS,
    CLASSIFIER,
    CORRECTION,
    EXPERIMENTS,
    CONFIG,
    PART,
    STATISTICS,
    EXPORTED_MODEL,
    ARRAY_STACK,
    LABELS,
    TRACKS,
    TRACKS_FOLDER,
    IMAGES,
)
"""The first that recognises a path describes it."""


def describe(path: str | Path) -> Description:
    """Describe what is at a path.

    Parameters
    ----------
    path : str or Path
        File, folder or store; of URLs, plates only. Nothing in it is executed: checkpoints are read as plain data.

    Raises
    ------
    MissingInputError
        If there is nothing.
    InputError
        If it is nothing that is known, or broken.
    """
    if "://" in str(path):
        return PLATE.describe(path)
    path = Path(path)
    if not path.exists():
        raise missing_path(path, expected=", ".join(each.name for each in DESCRIBERS))
    found = next((each for each in DESCRIBERS if each.recognises(path)), None)
    if found is None:
        raise InputError(
            str(path),
            found=_what(path),
            expected=f"one of: {', '.join(each.name for each in DESCRIBERS)}",
            fix=_known_inside(path),
        )
    description = found.describe(path)
    return replace(description, next_steps=tuple(_pasteable(step, str(path)) for step in description.next_steps))


def _pasteable(step: str, path: str) -> str:
    """Quote a path in a command where a shell would take it apart."""
    return step.replace(path, shlex.quote(path)) if step.startswith(_COMMANDS) else step


def _what(path: Path) -> str:
    if not path.is_dir():
        return f"a file ({path.suffix or 'without a suffix'}) of something else"
    names = sorted(entry.name for entry in path.iterdir())
    return f"a folder of {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" if names else "an empty folder"


def _known_inside(path: Path) -> str:
    """Name what is known in a folder that is nothing itself: a folder of stores or runs, a well of a plate."""
    entries = sorted(path.iterdir())[:_MOST_TRIED] if path.is_dir() else []
    known = [str(entry) for entry in entries if any(each.recognises(entry) for each in DESCRIBERS)]
    return f"name what is in it: {', '.join(known[:_MOST_NAMED])}" if known else ""
