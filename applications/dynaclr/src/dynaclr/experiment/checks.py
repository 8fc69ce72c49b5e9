"""What must hold for the fields of an experiment, alone and against its store."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dynaclr.experiment.config import ExperimentConfig
from viscy_data.checks import is_names, is_number, is_texts, near_matches
from viscy_data.errors import InputError, InputErrors, MissingInputError
from viscy_data.stores import FovInfo, UsableFovs, canonical_fov_name, well_of

__all__ = ["check_config", "check_names", "check_plate", "repeated_channel", "within"]

_TEXTS = ("organelle", "date", "default_condition")
_LISTS = ("channel_names", "source_channel")


def within(error: InputError, where: str, field: str) -> list[InputError]:
    """Say of which experiment and field an error about a store or table is."""
    parts = error.errors if isinstance(error, InputErrors) else (error,)
    kind = MissingInputError if isinstance(error, MissingInputError) else InputError
    return [
        kind(
            where,
            field=f"{field} ({part.field})" if part.field else field,
            found=f"{part.where}: {part.found}",
            expected=part.expected,
            fix=part.fix,
        )
        for part in parts
    ]


def check_names(experiments: Sequence[ExperimentConfig], source: str) -> list[InputError]:
    """Check that there are experiments and that no name repeats."""
    if not experiments:
        return [InputError(source or "experiments", found="no experiment", expected="at least one")]
    counts = Counter(config.name for config in experiments if isinstance(config.name, str))
    return [
        InputError(
            source or "experiments",
            field="name",
            found=f"{count} experiments of the name {name!r}",
            expected="a name of its own for each",
            fix="rename one",
        )
        for name, count in counts.items()
        if count > 1
    ]


def check_config(config: ExperimentConfig, where: str) -> list[InputError]:
    """Check the fields of an experiment by themselves: types, ranges, references between them."""
    errors = []

    def wrong(field: str, expected: str, fix: str = "") -> None:
        errors.append(InputError(where, field=field, found=_shown(getattr(config, field)), expected=expected, fix=fix))

    if not isinstance(config.name, str) or not config.name.strip():
        wrong("name", "a text", "put the name in quotes")
    if not _is_path(config.tracks_path):
        wrong("tracks_path", "a path")
    listed = config.data_path if isinstance(config.data_path, list) else [config.data_path]
    if not listed or not all(map(_is_path, listed)):
        wrong("data_path", "a path, or a list of paths")
    if not isinstance(config.normalization_path, str | os.PathLike):
        wrong("normalization_path", "a path")
    for field in _TEXTS:
        if not isinstance(getattr(config, field), str):
            wrong(field, "a text", "put it in quotes")
    for field in ("interval_minutes", "start_hpi", "moi"):
        if not is_number(getattr(config, field)):
            wrong(field, "a number", "write it without quotes" if isinstance(getattr(config, field), str) else "")
    if is_number(config.interval_minutes) and config.interval_minutes <= 0:
        wrong("interval_minutes", "more than 0 minutes")
    for field in _LISTS:
        if not is_texts(getattr(config, field)):
            wrong(field, "a list of channel names", _as_list(getattr(config, field)))
        elif not getattr(config, field) or (field == "source_channel" and not is_names(getattr(config, field))):
            wrong(field, "at least one channel, each once")
    if not any(err.field in _LISTS for err in errors):
        errors += _check_source_channel(config, where)
    return errors + _check_condition_wells(config.condition_wells, where)


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) and str(value) != ""


def _check_source_channel(config: ExperimentConfig, where: str) -> list[InputError]:
    errors = []
    for channel in config.source_channel:
        count = config.channel_names.count(channel)
        if count == 0:
            expected = f"{near_matches(channel, config.channel_names)} (channel_names)"
            errors.append(
                InputError(
                    where, field="source_channel", found=repr(channel), expected=expected, fix="correct the name"
                )
            )
        elif count > 1:
            errors.append(repeated_channel(where, "source_channel", channel, count))
    return errors


def repeated_channel(where: str, field: str, channel: str, count: int) -> InputError:
    """Say that a name which is asked for belongs to several channels of the store."""
    return InputError(
        where,
        field=field,
        found=f"{channel!r}, the name of {count} channels (channel_names)",
        expected="a name that one channel has",
        fix="give the channels of the store different labels",
    )


def _check_condition_wells(condition_wells: Any, where: str) -> list[InputError]:
    field = "condition_wells"
    if condition_wells is None:
        return []
    if not isinstance(condition_wells, dict) or not condition_wells:
        return [
            InputError(
                where,
                field=field,
                found=_shown(condition_wells),
                expected="conditions with their wells",
                fix="write {uninfected: [A/1], infected: [B/1]}, or leave it out",
            )
        ]
    errors, owner = [], {}
    for condition, wells in condition_wells.items():
        if not isinstance(condition, str) or not is_texts(wells) or not wells:
            errors.append(
                InputError(
                    where,
                    field=f"{field}, condition {condition!r}",
                    found=_shown(wells),
                    expected="a text with a list of wells",
                    fix=_as_list(wells),
                )
            )
            continue
        for well in map(canonical_fov_name, wells):
            if owner.setdefault(well, condition) != condition:
                errors.append(
                    InputError(
                        where,
                        field=field,
                        found=f"well {well} in {owner[well]!r} and in {condition!r}",
                        expected="each well in one condition",
                    )
                )
    return errors


def check_plate(config: ExperimentConfig, plate: UsableFovs, where: str) -> list[InputError]:
    """Check the fields of an experiment against the FOVs of its store."""
    store, fovs = config.data_path, plate.fovs
    if not fovs:
        return [InputError(where, field="data_path", found=f"no FOV in {store}", expected="at least one")]
    errors = []
    differing = [fov for fov in fovs if list(fov.channel_names) != list(config.channel_names)]
    if differing:
        fov = differing[0]
        count = f"in {len(differing)} of {len(fovs)} FOVs of" if len(differing) < len(fovs) else "in"
        errors.append(
            InputError(
                where,
                field="channel_names",
                found=", ".join(map(repr, config.channel_names)),
                expected=f"{', '.join(map(repr, fov.channel_names))} ({count} {store}, first {fov.name})",
                fix=_channel_fix(config, fov),
            )
        )
    wells = list(dict.fromkeys(well_of(key.name) for key in [*(fov.key for fov in fovs), *plate.left_out]))
    for condition, named in (config.condition_wells or {}).items():
        unknown = [well for well in named if canonical_fov_name(well) not in wells]
        if unknown:
            errors.append(
                InputError(
                    where,
                    field=f"condition_wells, condition {condition!r}",
                    found=", ".join(map(repr, unknown)),
                    expected=f"for {unknown[0]!r}: {near_matches(unknown[0], wells)} (wells of {store})",
                    fix="correct or remove these wells",
                )
            )
    return errors


def _channel_fix(config: ExperimentConfig, fov: FovInfo) -> str:
    unknown = [name for name in config.channel_names if name not in fov.channel_names]
    if unknown:
        return f"for {unknown[0]!r}: {near_matches(unknown[0], fov.channel_names)}"
    return "list the channels of the store in its order; choose among them with source_channel"


def _as_list(value: Any) -> str:
    if isinstance(value, str):
        return f"write it as a list: [{value}]"
    return "put each in quotes" if isinstance(value, list | tuple) else ""


def _shown(value: Any) -> str:
    return f"the text {value!r}" if isinstance(value, str) and value else "nothing" if value is None else repr(value)
