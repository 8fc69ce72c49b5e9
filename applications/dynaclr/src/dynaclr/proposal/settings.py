"""Which settings suit what is there, each with the reason that stands beside it in the config."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dynaclr.proposal.channels import choose_channels
from dynaclr.proposal.facts import PlateFacts
from viscy_data.errors import InputError, raise_all

__all__ = ["Proposal", "Setting", "propose"]

_PATCH_STEP = 32  # a ConvNeXt halves an image five times
_STEM = 5  # slices that the stem of a 3D stack takes together
_STACKS = (1, 2, 3, 4, 6)  # numbers of such groups that the 96 channels after the stem can be divided by
_SHARE_OF_SPACING = 1.6
_OTHER_PIXELS = 1.15  # ratio of pixels of which cells look larger or smaller than augmentation makes them


@dataclass(frozen=True)
class Setting:
    """A value and why it was chosen."""

    value: object
    reason: str


@dataclass(frozen=True)
class Proposal:
    """Settings of the two files.

    Parameters
    ----------
    source_channels : dict of str to list of str
        Per experiment the channels in the order of their positions.
    channels, z_range, stem, final_size, read_size, tau_range, batch_size, validation : Setting
        Channels in words; first and last slice; (Z, Y, X) of the stem; pixels; pixels; hours; anchors; a mapping of
        options of the data module.
    dropped_channels : list of int
        Positions of fluorescent channels, which dropout hides at random.
    """

    source_channels: dict[str, list[str]]
    channels: Setting
    z_range: Setting
    stem: Setting
    final_size: Setting
    read_size: Setting
    tau_range: Setting
    batch_size: Setting
    validation: Setting
    dropped_channels: list[int]

    @property
    def settings(self) -> dict[str, Setting]:
        """All settings by what they are called in the files."""
        return {
            "source_channel": self.channels,
            "z_range": self.z_range,
            "final_yx_patch_size": self.final_size,
            "yx_patch_size": self.read_size,
            "tau_range": self.tau_range,
            "batch_size": self.batch_size,
            "validation": self.validation,
        }


def propose(plates: Sequence[PlateFacts]) -> Proposal:
    """Choose settings for plates whose frame intervals are known.

    Raises
    ------
    InputError
        If plates cannot be trained together: too few channels, tracks of a single frame.
    """
    raise_all(
        InputError(
            str(plate.tracks),
            found="tracks of a single frame",
            expected="cells that are followed over several frames",
            fix="check the column track_id: the same cell keeps its number from frame to frame",
        )
        for plate in plates
        if plate.track_frames < 2
    )
    source_channels, reason, has_label_free = choose_channels({plate.name: plate.channel_names for plate in plates})
    n_channels = len(next(iter(source_channels.values())))
    final = _final_size(plates)
    z_range, stem = _slices(min(plate.depth for plate in plates))
    return Proposal(
        source_channels=source_channels,
        channels=Setting(source_channels, reason),
        z_range=z_range,
        stem=stem,
        final_size=final,
        read_size=_read_size(plates, final.value),
        tau_range=_tau_range(plates),
        batch_size=_batch_size(plates),
        validation=_validation(plates),
        dropped_channels=list(range(1, n_channels)) if has_label_free else [],
    )


def _slices(depth: int) -> tuple[Setting, Setting]:
    """Take all slices, or the most in the middle that the stem can divide."""
    if depth < _STEM:
        what = "one slice: a 2D encoder" if depth == 1 else f"all {depth} slices, taken together by the stem"
        return Setting((0, depth), what), Setting((depth, 4, 4), what)
    used = _STEM * max(n for n in _STACKS if n * _STEM <= depth)
    first = (depth - used) // 2
    which = "all slices" if used == depth else f"{used} slices in the middle of {depth}: a multiple of {_STEM}"
    return Setting((first, first + used), which), Setting((_STEM, 4, 4), f"{_STEM} slices at a time")


def _final_size(plates: Sequence[PlateFacts]) -> Setting:
    smallest = min(min(plate.height, plate.width) for plate in plates)
    spacing = max((plate.spacing_px for plate in plates if math.isfinite(plate.spacing_px)), default=math.inf)
    if math.isfinite(spacing):
        wanted = _SHARE_OF_SPACING * spacing
        reason = f"cells are {spacing:.0f} px apart: a patch holds one, and a little of what is around it"
    else:
        wanted, reason = smallest / 4, "a quarter of the image, as cells are alone in it: check that a cell fits"
    size = max(_PATCH_STEP, math.ceil(wanted / _PATCH_STEP) * _PATCH_STEP)
    if size >= 2 * spacing:
        step = f"sizes are multiples of {_PATCH_STEP}"
        reason = f"cells are {spacing:.0f} px apart: {step}, so that the next ones are in it too"
    if size > smallest:
        size, reason = smallest, f"as large as the smallest image, {smallest} px"
    pixels = {plate.name: plate.pixel_size for plate in plates if plate.pixel_size is not None}
    if pixels and max(pixels.values()) > _OTHER_PIXELS * min(pixels.values()):
        told = ", ".join(f"{name} {value:g}" for name, value in pixels.items())
        reason += f"; by the metadata pixels differ ({told}), and with them the size of cells: bring images to one size"
    return Setting((size, size), reason)


def _read_size(plates: Sequence[PlateFacts], final: tuple[int, int]) -> Setting:
    """Leave room for the corners of a turned patch."""
    room = math.ceil(final[0] * math.sqrt(2) / 8) * 8
    size = tuple(min([room, *(getattr(plate, axis) for plate in plates)]) for axis in ("height", "width"))
    return Setting(size, "room to turn the patch" if min(size) == room else "as much room to turn as the image has")


def _tau_range(plates: Sequence[PlateFacts]) -> Setting:
    """Half an hour to two hours, or what fits half of a usual track; a frame of every experiment is in it."""
    intervals = [plate.interval_minutes / 60 for plate in plates]
    tracked = min(plate.track_frames * hours for plate, hours in zip(plates, intervals, strict=True))
    last = max(min(2.0, tracked / 2), *intervals)
    first = 0.5 if last >= 1 else min(max(intervals), last)
    reason = f"hours from a cell to its later self; a usual track lasts {tracked:.3g} h, a frame {max(intervals):.3g} h"
    return Setting((math.floor(first * 1000) / 1000, math.ceil(last * 1000) / 1000), reason)


def _batch_size(plates: Sequence[PlateFacts]) -> Setting:
    n_cells = sum(plate.cells_per_table * plate.n_fovs for plate in plates)
    size = 8
    while size < 128 and size * 16 < n_cells:
        size *= 2
    return Setting(size, f"about {n_cells:.0f} cells; more negatives teach more, if memory allows")


def _validation(plates: Sequence[PlateFacts]) -> Setting:
    if len(plates) > 2:
        return Setting({"val_experiments": [plates[-1].name]}, "an experiment that the encoder never sees")
    by = "fov" if min(plate.n_fovs for plate in plates) >= 5 else "lineage"
    why = f"too few experiments to hold one out: a fifth of the {by}s of each"
    return Setting({"val_split": {"by": by, "fraction": 0.2}}, why)
