"""Whether the patches that are asked for fit into the images."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from viscy_data.errors import InputError, raise_all
from viscy_data.stores import FovInfo

__all__ = ["check_limits", "checked_patch_size", "checked_z_range"]


def checked_z_range(z_range: slice | Sequence[int]) -> slice:
    """Return a range of z slices as ``slice(first, last + 1)``.

    Raises
    ------
    InputError
        If it is not two whole numbers, or empty.
    """
    limits = (z_range.start, z_range.stop) if isinstance(z_range, slice) else tuple(z_range)
    expected = "two whole numbers, first and one past the last slice, with 0 <= first < last"
    step = z_range.step if isinstance(z_range, slice) else None
    if step not in (None, 1) or len(limits) != 2 or not all(_is_whole(limit) for limit in limits):
        raise InputError("z_range", found=str(z_range), expected=expected)
    first, last = map(operator.index, limits)
    if not 0 <= first < last:
        raise InputError("z_range", found=f"({first}, {last})", expected=expected)
    return slice(first, last)


def checked_patch_size(yx_patch_size: Sequence[int]) -> tuple[int, int]:
    """Return height and width of a patch in pixels.

    Raises
    ------
    InputError
        If they are not two positive whole numbers.
    """
    size = tuple(yx_patch_size)
    if len(size) != 2 or not all(_is_whole(length) and length > 0 for length in size):
        raise InputError("yx_patch_size", found=str(size), expected="two whole numbers of pixels, more than 0")
    return operator.index(size[0]), operator.index(size[1])


def check_limits(
    experiments: Sequence[str],
    fovs: Sequence[FovInfo],
    fov_experiment: Sequence[int],
    z_range: slice,
    yx_patch_size: tuple[int, int],
) -> None:
    """Check that every FOV holds the z slices and is at least as large as a patch.

    Parameters
    ----------
    experiments : sequence of str
        Names of the experiments.
    fovs : sequence of FovInfo
        FOVs that are used.
    fov_experiment : sequence of int
        Experiment of each FOV.
    z_range : slice
        Slices of a patch.
    yx_patch_size : tuple of int
        Height and width of a patch in pixels.

    Raises
    ------
    InputError
        One per experiment and limit, together.
    """
    height, width = yx_patch_size
    errors = []
    for number, name in enumerate(experiments):
        own = [fov for fov, experiment in zip(fovs, fov_experiment, strict=True) if experiment == number]
        shallow = [fov for fov in own if fov.shape[2] < z_range.stop]
        small = [fov for fov in own if fov.shape[3] < height or fov.shape[4] < width]
        if shallow:
            fov, which = shallow[0], _counted(shallow)
            errors.append(
                InputError(
                    f"experiment {name!r}",
                    field="z_range",
                    found=f"({z_range.start}, {z_range.stop}), but FOV {which} has {fov.shape[2]} slices",
                    expected=f"a range within (0, {min(fov.shape[2] for fov in shallow)})",
                    fix="set z_range to slices that every stack has",
                )
            )
        if small:
            fov, which = small[0], _counted(small)
            errors.append(
                InputError(
                    f"experiment {name!r}",
                    field="yx_patch_size",
                    found=f"({height}, {width}), but FOV {which} has {fov.shape[3]} x {fov.shape[4]} pixels",
                    expected="patches no larger than the images",
                    fix="choose a smaller patch, or leave these FOVs out with exclude_fovs",
                )
            )
    raise_all(errors)


def _counted(fovs: Sequence[FovInfo]) -> str:
    return f"{fovs[0].name} (and {len(fovs) - 1} more)" if len(fovs) > 1 else fovs[0].name


def _is_whole(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)
