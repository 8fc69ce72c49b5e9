"""Which channel of each experiment stands at which position of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from dynaclr.experiment.checks import repeated_channel
from dynaclr.experiment.config import ExperimentConfig
from viscy_data.checks import near_matches
from viscy_data.errors import InputError

__all__ = ["TrainingChannels", "resolve_channels"]

TrainingChannels = Literal["shared", "all"] | list[str]
"""``"shared"``: names that all experiments use; ``"all"``: names that any uses; a list: these names."""


def resolve_channels(
    experiments: Sequence[ExperimentConfig],
    training_channels: TrainingChannels | None,
    where: Callable[[str], str],
) -> tuple[dict[str, list[str | None]], list[InputError]]:
    """Name the channel at each position, per experiment.

    Parameters
    ----------
    experiments : sequence of ExperimentConfig
        With sound fields.
    training_channels : {"shared", "all"} or list of str, optional
        None: by position in ``source_channel``.
    where : callable
        Names an experiment in messages.

    Returns
    -------
    names : dict of str to list of (str or None)
        None where an experiment lacks the channel.
    errors : list of InputError
        Why channels do not correspond.
    """
    if not experiments:
        return {}, []
    used = {config.name: list(config.source_channel) for config in experiments}
    if training_channels is None:
        return used, _differing_counts(experiments, where)
    union = list(dict.fromkeys(name for names in used.values() for name in names))
    if training_channels == "all":
        return {name: [entry if entry in names else None for entry in union] for name, names in used.items()}, []
    if training_channels == "shared":
        shared = [entry for entry in union if all(entry in names for names in used.values())]
        if not shared:
            lists = "; ".join(f"{name}: {', '.join(names)}" for name, names in used.items())
            return {}, [
                InputError(
                    "training_channels",
                    found=f"shared, but no source_channel is common to all experiments ({lists})",
                    expected="at least one common channel",
                    fix="set training_channels: all",
                )
            ]
        return {name: list(shared) for name in used}, []
    return _by_name(experiments, training_channels, where)


def _differing_counts(experiments: Sequence[ExperimentConfig], where: Callable[[str], str]) -> list[InputError]:
    first = experiments[0]
    return [
        InputError(
            where(config.name),
            field="source_channel",
            found=f"{len(config.source_channel)} channels ({', '.join(config.source_channel)})",
            expected=f"{len(first.source_channel)} as in {first.name!r} ({', '.join(first.source_channel)})",
            fix="give every experiment the same number, or set training_channels: all",
        )
        for config in experiments
        if len(config.source_channel) != len(first.source_channel)
    ]


def _by_name(
    experiments: Sequence[ExperimentConfig], names: Sequence[str], where: Callable[[str], str]
) -> tuple[dict[str, list[str | None]], list[InputError]]:
    sound = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not sound or not names or len(set(names)) < len(names):
        expected = "shared, all, or a list of channel names, each once"
        return {}, [InputError("training_channels", found=repr(names), expected=expected)]
    errors = []
    for config in experiments:
        for name in names:
            count = config.channel_names.count(name)
            if count == 0:
                errors.append(_absent_channel(config, name, where(config.name)))
            elif count > 1:
                errors.append(repeated_channel(where(config.name), "training_channels", name, count))
    return {config.name: list(names) for config in experiments}, errors


def _absent_channel(config: ExperimentConfig, name: str, where: str) -> InputError:
    return InputError(
        where,
        field="channel_names",
        found=f"no channel {name!r}, which training_channels asks for",
        expected=near_matches(name, config.channel_names),
        fix="correct the name, or set training_channels: all",
    )
