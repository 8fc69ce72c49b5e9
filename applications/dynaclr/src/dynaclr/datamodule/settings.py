"""Options of the data module: ranges that are checked before anything is read, and a plain record for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viscy_data.checks import Option, check_options, is_count, is_pair
from viscy_data.errors import InputError

__all__ = ["WHERE", "PatchWindow", "plain_record"]

WHERE = "MultiExperimentDataModule"


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
        z_holds = is_pair(z) and is_count(z[0]) and is_count(z[1]) and z[0] < z[1]
        sizes_hold = [is_pair(value) and all(is_count(entry, 1) for entry in value) for value in (size, final)]
        fits = not all(sizes_hold) or all(small <= large for small, large in zip(final, size, strict=True))
        pixels = "[height, width] in whole pixels, at least 1"
        return check_options(
            WHERE,
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
            ],
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
