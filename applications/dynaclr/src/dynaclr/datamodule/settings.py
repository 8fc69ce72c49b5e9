"""Options of the data module: ranges that are checked before anything is read, and a plain record for checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viscy_data.errors import InputError

__all__ = [
    "Option",
    "PatchWindow",
    "check_options",
    "is_count",
    "is_names",
    "is_number",
    "is_tau_range",
    "plain_record",
]

WHERE = "MultiExperimentDataModule"


@dataclass(frozen=True)
class Option:
    """One option: its name, what was given, whether that is usable, and what would be."""

    name: str
    found: Any
    holds: bool
    expected: str
    fix: str = ""


def check_options(options: Iterable[Option]) -> list[InputError]:
    """Return a problem for every option that does not hold."""
    return [
        InputError(WHERE, field=option.name, found=repr(option.found), expected=option.expected, fix=option.fix)
        for option in options
        if not option.holds
    ]


def is_count(value: Any, least: int = 0) -> bool:
    """Tell whether a value is a whole number of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    """Tell whether a value is a finite number in a closed range."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and least <= value <= most
    )


def is_names(value: Any) -> bool:
    """Tell whether a value is a list of different texts."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


def is_tau_range(value: Any) -> bool:
    """Tell whether a value is a range of hours."""
    return _is_pair(value) and all(is_number(hours, 0) for hours in value) and value[0] <= value[1]


def _is_pair(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2


@dataclass(frozen=True)
class PatchWindow:
    """What is read around a cell, and what of it the model sees.

    Parameters
    ----------
    z_range : tuple of int
        First and one past the last slice.
    yx_patch_size, final_yx_patch_size : tuple of int
        Height and width in pixels as read, and of the part in the centre that remains.
    """

    z_range: tuple[int, int]
    yx_patch_size: tuple[int, int]
    final_yx_patch_size: tuple[int, int]

    def problems(self) -> list[InputError]:
        """Return what is wrong with it."""
        z, size, final = self.z_range, self.yx_patch_size, self.final_yx_patch_size
        z_holds = _is_pair(z) and is_count(z[0]) and is_count(z[1]) and z[0] < z[1]
        sizes_hold = [_is_pair(value) and all(is_count(entry, 1) for entry in value) for value in (size, final)]
        fits = not all(sizes_hold) or all(small <= large for small, large in zip(final, size, strict=True))
        pixels = "[height, width] in whole pixels, at least 1"
        return check_options(
            [
                Option("z_range", z, z_holds, "[first slice, one past the last] with 0 <= first < last"),
                Option("yx_patch_size", size, sizes_hold[0], pixels),
                Option("final_yx_patch_size", final, sizes_hold[1], pixels),
                Option(
                    "final_yx_patch_size",
                    final,
                    fits,
                    f"at most yx_patch_size {size!r}: the final patch is cut out of it",
                    "read larger patches, or keep smaller ones",
                ),
            ]
        )

    @property
    def slices(self) -> slice:
        """Range of z slices."""
        return slice(*self.z_range)

    @property
    def final_size(self) -> tuple[int, int, int]:
        """(Z, Y, X) that the model sees."""
        return (self.z_range[1] - self.z_range[0], *self.final_yx_patch_size)


def plain_record(value: Any) -> Any:
    """Reduce settings to what a checkpoint holds safely: numbers, texts, lists and mappings; objects by their class."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain_record(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_record(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    return f"{type(value).__module__}.{type(value).__qualname__}"
