"""The two YAML files of a proposal, with its reasons as comments."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from dynaclr.proposal.facts import PlateFacts
from dynaclr.proposal.settings import Proposal

__all__ = ["experiments_text", "fit_text", "plain"]


def experiments_text(plates: Sequence[PlateFacts], proposal: Proposal, folder: Path) -> str:
    """Describe the experiments.

    Parameters
    ----------
    plates : sequence of PlateFacts
        With their intervals.
    proposal : Proposal
        Which channels to use.
    folder : Path
        Where the file will be; paths below its parent are written relative to it.
    """
    lines = ["# One entry per experiment. Paths are relative to this file, or absolute.", "experiments:"]
    for plate in plates:
        wells = plain(plate.wells[:4]) + (f" and {len(plate.wells) - 4} more" if len(plate.wells) > 4 else "")
        lines += [
            f"  - name: {plain(plate.name)}",
            f"    data_path: {plain(_relative(plate.store, folder))}",
            f"    tracks_path: {plain(_relative(plate.tracks, folder))}",
            f"    channel_names: {plain(plate.channel_names)}   # as in the store",
            f"    source_channel: {plain(proposal.source_channels[plate.name])}   # position k is ch_k everywhere",
            f"    interval_minutes: {plate.interval_minutes:g}",
            "    # Wells by condition, to balance batches by (condition_balanced in fit.yml) and to probe for.",
            f"    # Wells with tracks: {wells}",
            "    # condition_wells:",
            f"    #   uninfected: {plain(plate.wells[:1])}",
            f"    #   infected: {plain(plate.wells[1:2])}",
            "    # start_hpi: 3.0   # hours post infection of the first frame, if there was an infection",
            "",
        ]
    return "\n".join(lines)


def fit_text(proposal: Proposal) -> str:
    """Describe the training.

    Parameters
    ----------
    proposal : Proposal
        All settings.
    """
    n_channels = len(next(iter(proposal.source_channels.values())))
    keys = [f"ch_{position}" for position in range(n_channels)]
    first, end = proposal.z_range.value
    values = {name: plain(setting.value) for name, setting in proposal.settings.items() if name != "validation"}
    values |= {f"{name}_reason": setting.reason for name, setting in proposal.settings.items()}
    (option, value), *_ = proposal.validation.value.items()
    values |= {
        "validation": f"{option}: {plain(value)}",
        "dropped": plain(proposal.dropped_channels),
        "keys": plain(keys),
        "n_channels": str(n_channels),
        "depth": str(end - first),
        "stem": plain(proposal.stem.value),
        "stem_reason": proposal.stem.reason,
        "shape": plain([1, n_channels, end - first, *proposal.final_size.value]),
        "num_workers": str(min(4, max(1, (os.cpu_count() or 1) - 1))),
    }
    return Template((files("dynaclr.proposal") / "fit.yml.template").read_text()).substitute(values)


def _relative(path: str | Path, folder: Path) -> str:
    if "://" in str(path):
        return str(path)
    path, folder = Path(path).resolve(), folder.resolve()
    if path.is_relative_to(folder.parent):
        return os.path.relpath(path, folder)
    return str(path)


def plain(value: object) -> str:
    """Write a value as YAML in one line: JSON, without quotes where a word needs none."""
    if isinstance(value, str):
        letters = value.translate(str.maketrans("", "", "_./-"))
        is_word = (
            letters.isalnum() and not letters[0].isdigit() and value[0] not in "-." and value.lower() not in _NOT_WORDS
        )
        return value if is_word else json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {plain(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    return json.dumps(value)


_NOT_WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}
