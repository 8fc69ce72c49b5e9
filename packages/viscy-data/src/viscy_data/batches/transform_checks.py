"""Whether transforms fit the data: their channels exist, and the statistics that they need are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from viscy_data.checks import Option
from viscy_data.errors import InputError

if TYPE_CHECKING:
    from monai.transforms import MapTransform

__all__ = ["check_keys", "check_statistics", "check_transforms"]


class _WithStatistics(Protocol):
    """A dataset that knows the statistics of its FOVs."""

    def missing_statistics(self, level: str, keys: Sequence[str]) -> dict[tuple[str, str, str], int]: ...


def check_transforms(**transforms: Any) -> list[Option]:
    """Return the checks of options that are lists of transforms, by their names."""
    return [
        Option(name, found, found is None or all(map(callable, found)), "a list of transforms")
        for name, found in transforms.items()
    ]


def check_keys(where: str, transforms: Sequence[MapTransform], keys: Sequence[str]) -> list[InputError]:
    """Return a problem for every transform that names a channel that there is not."""
    problems = []
    for transform in transforms:
        unknown = [key for key in getattr(transform, "keys", ()) if key not in keys]
        if unknown and not getattr(transform, "allow_missing_keys", False):
            problems.append(
                InputError(
                    where,
                    field=f"keys of {type(transform).__name__}",
                    found=", ".join(map(repr, unknown)),
                    expected=f"some of {', '.join(keys)}",
                    fix="correct the keys of normalizations and augmentations in the config of the data",
                )
            )
    return problems


def check_statistics(dataset: _WithStatistics, normalizations: Sequence[MapTransform]) -> list[InputError]:
    """Return a problem for every part of the data and channel that lacks statistics which a transform needs."""
    problems = {}
    for transform in normalizations:
        level = getattr(transform, "level", None)
        if level is None:
            continue
        for (label, channel, store), n_fovs in dataset.missing_statistics(level, transform.keys).items():
            problems[label, channel, level] = InputError(
                label,
                field=f"normalizations ({type(transform).__name__})",
                found=f"no {level} of channel {channel!r} in {n_fovs} FOVs of {store}",
                expected="statistics for every FOV and channel that is normalised",
                fix=f"viscy preprocess --data_path {store}",
            )
    return list(problems.values())
