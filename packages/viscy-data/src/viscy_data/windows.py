"""What is read around a cell, what of it the model sees, and whether it fits into the images.

>>> window = PatchWindow(z_range=(0, 5), yx_patch_size=(96, 96), final_yx_patch_size=(64, 64))
>>> window.read_size, window.final_size
((5, 96, 96), (5, 64, 64))
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from viscy_data.checks import Option, check_options, is_pair
from viscy_data.errors import InputError
from viscy_data.stores import FovInfo

__all__ = ["PatchWindow", "check_fovs_hold"]

_SLICES = "two whole numbers, [first slice, one past the last], with 0 <= first < last"
_PIXELS = "two whole numbers of pixels, [height, width], more than 0"


@dataclass(frozen=True)
class PatchWindow:
    """Range of slices and sizes of patches.

    Parameters
    ----------
    z_range : slice or tuple of int
        First slice and the one after the last.
    yx_patch_size : tuple of int
        Height and width in pixels as read.
    final_yx_patch_size : tuple of int, optional
        Height and width of the part that the model sees; as read by default.
    z_window_size : int, optional
        Slices in the middle that the model sees; all by default.
    max_border_shift : int, optional
        Most pixels that the edge of an image may move a patch away from its cell; any number by default.
    where, read_name : str
        How errors call the whole, and ``yx_patch_size``.
    """

    z_range: slice | tuple[int, int]
    yx_patch_size: tuple[int, int]
    final_yx_patch_size: tuple[int, int] | None = None
    z_window_size: int | None = None
    max_border_shift: int | None = None
    where: str = "patches"
    read_name: str = "yx_patch_size"

    def problems(self) -> list[InputError]:
        """Return what is wrong with it; the sizes below hold only where nothing is."""
        z, read = _limits(self.z_range), self.yx_patch_size
        final = read if self.final_yx_patch_size is None else self.final_yx_patch_size
        z_holds = is_pair(z) and all(map(_is_whole, z)) and 0 <= z[0] < z[1]
        read_holds, final_holds = (is_pair(size) and all(_is_whole(n, 1) for n in size) for size in (read, final))
        deep = self.z_window_size
        return check_options(
            self.where,
            [
                Option(
                    "z_range", z, z_holds, "two whole numbers, [first slice, one past the last], with 0 <= first < last"
                ),
                Option(self.read_name, read, read_holds, _PIXELS),
                Option("final_yx_patch_size", final, final_holds or final is read, _PIXELS),
                Option(
                    "final_yx_patch_size",
                    final,
                    not (read_holds and final_holds) or all(f <= r for f, r in zip(final, read, strict=True)),
                    f"at most {self.read_name} {read!r}: it is cut out of it, not larger than what is read",
                    "read larger patches, or keep smaller ones",
                ),
                Option(
                    "z_window_size",
                    deep,
                    deep is None or not z_holds or (_is_whole(deep, 1) and deep <= z[1] - z[0]),
                    f"at least 1, and not larger than what is read, z_range {z!r}",
                ),
                Option(
                    "max_border_shift",
                    self.max_border_shift,
                    self.max_border_shift is None or _is_whole(self.max_border_shift),
                    "whole pixels, at least 0; or null for all cells",
                ),
            ],
        )

    @property
    def slices(self) -> slice:
        """Range of slices."""
        return slice(*map(operator.index, _limits(self.z_range)))

    @property
    def read_size(self) -> tuple[int, int, int]:
        """(Z, Y, X) as read."""
        return self._sized(self.yx_patch_size)

    @property
    def final_read_size(self) -> tuple[int, int, int]:
        """(Z, Y, X) to read where no margin is wanted."""
        return self._sized(self.final_yx_patch_size or self.yx_patch_size)

    @property
    def final_size(self) -> tuple[int, int, int]:
        """(Z, Y, X) that the model sees."""
        depth, *yx = self.final_read_size
        return (self.z_window_size or depth, *yx)

    def _sized(self, yx: Sequence[int]) -> tuple[int, int, int]:
        slices = self.slices
        return (slices.stop - slices.start, operator.index(yx[0]), operator.index(yx[1]))


def check_fovs_hold(
    fovs: Sequence[FovInfo],
    slices: slice,
    yx_size: Sequence[int],
    where: str,
    read_name: str = "yx_patch_size",
    z_name: str = "z_range",
) -> list[InputError]:
    """Say which FOVs lack slices, or are smaller than a patch.

    Parameters
    ----------
    fovs : sequence of FovInfo
        FOVs that are used.
    slices : slice
        Slices of a patch.
    yx_size : sequence of int
        Height and width of a patch in pixels.
    where : str
        What they belong to.
    read_name, z_name : str, default "yx_patch_size", "z_range"
        What the config calls the size of a patch, and its slices.
    """
    height, width = yx_size
    shallow = [fov for fov in fovs if fov.shape[2] < slices.stop]
    small = [fov for fov in fovs if fov.shape[3] < height or fov.shape[4] < width]
    errors = []
    if shallow:
        errors.append(
            InputError(
                where,
                field=z_name,
                found=f"({slices.start}, {slices.stop}), but FOV {_counted(shallow)} has {shallow[0].shape[2]} slices",
                expected=f"a range within (0, {min(fov.shape[2] for fov in shallow)})",
                fix=f"set {z_name} to slices that every stack has",
            )
        )
    if small:
        rows, columns = small[0].shape[3:]
        errors.append(
            InputError(
                where,
                field=read_name,
                found=f"({height}, {width}), but FOV {_counted(small)} has {rows} x {columns} pixels",
                expected="patches no larger than the images",
                fix="choose a smaller patch, or leave these FOVs out",
            )
        )
    return errors


def _limits(z_range: Any) -> Any:
    if isinstance(z_range, slice):
        return (z_range.start, z_range.stop) if z_range.step in (None, 1) else z_range
    return z_range


def _is_whole(value: object, least: int = 0) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool) and value >= least


def _counted(fovs: Sequence[FovInfo]) -> str:
    return f"{fovs[0].name} (and {len(fovs) - 1} more)" if len(fovs) > 1 else fovs[0].name
