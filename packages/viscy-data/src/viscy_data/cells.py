"""Whether images have what is asked of them, and which cells of a table are in their image."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from viscy_data.errors import InputError
from viscy_data.placement import border_shifts
from viscy_data.stores import FovInfo
from viscy_data.tracks import count_outside, describe_outside
from viscy_data.windows import PatchWindow, check_fovs_hold

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["cells_inside", "check_fovs"]

_logger = logging.getLogger(__name__)


def check_fovs(
    fovs: Sequence[FovInfo], channels: Sequence[str], window: PatchWindow, field: str = "source_channel"
) -> list[InputError]:
    """Return a problem for every FOV without a channel, with too few slices, or smaller than a patch.

    Parameters
    ----------
    fovs : sequence of FovInfo
        Of one or more plates.
    channels : sequence of str
        Names that every FOV is to have.
    window : PatchWindow
        What will be read.
    field : str, default "source_channel"
        What the config calls the channels.
    """
    errors = []
    for fov in fovs:
        if absent := [name for name in channels if name not in fov.channel_names]:
            expected = f"one of {', '.join(fov.channel_names)}"
            where = f"{fov.store}, FOV {fov.name}"
            errors.append(InputError(where, field=field, found=", ".join(absent), expected=expected))
        for name in channels:
            if fov.channel_names.count(name) > 1:
                errors.append(fov.ambiguous_channel(name, field))
    for store in dict.fromkeys(fov.store for fov in fovs):
        own = [fov for fov in fovs if fov.store == store]
        errors += check_fovs_hold(own, window.slices, window.read_size[1:], store, window.read_name)
    return errors


def cells_inside(fovs: Sequence[FovInfo], tracks: pd.DataFrame, window: PatchWindow) -> pd.DataFrame:
    """Leave out, with a warning, observations outside their image or after its last frame; measure border shifts.

    Parameters
    ----------
    fovs : sequence of FovInfo
        The images.
    tracks : pandas.DataFrame
        One row per observation: ``fov_index`` (into ``fovs``), ``fov_name``, ``t``, ``y``, ``x`` in pixels.
    window : PatchWindow
        The patch that the model sees, and how far the edge may move it.

    Returns
    -------
    pandas.DataFrame
        What is left, in its order, with ``border_shift``: pixels that the edge moves the patch by.

    Raises
    ------
    ValueError
        If nothing is left.
    """
    extent = np.array([fov.shape for fov in fovs])[tracks["fov_index"]]
    late = tracks["t"].to_numpy() >= extent[:, 0]
    beyond = np.zeros(len(tracks), bool)
    for name, axis in (("y", 3), ("x", 4)):
        center = tracks[name].to_numpy()
        beyond |= ~((center >= 0) & (center < extent[:, axis]))
    if late.any():
        names = sorted(set(tracks["fov_name"][late]))
        warnings.warn(
            f"{int(late.sum())} of {len(tracks)} tracked cells are beyond the last frame of their image and left out, "
            f"in FOVs {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}",
            stacklevel=4,
        )
    sentences = describe_outside([count_outside(own, fovs[number]) for number, own in tracks.groupby("fov_index")])
    for sentence in sentences:
        warnings.warn(sentence, stacklevel=4)
    keep = ~(late | beyond)
    tracks = tracks[keep]
    sizes = window.final_size[1:]
    extents = [fov.shape[3:] for fov in fovs]
    shifts = border_shifts(tracks["y"], tracks["x"], tracks["fov_index"], extents, sizes)
    tracks = tracks.assign(border_shift=shifts)
    if window.max_border_shift is not None:
        near = (tracks["border_shift"] > window.max_border_shift).to_numpy()
        _logger.info("%d of %d tracked cells are left out at the border (max_border_shift)", near.sum(), len(near))
        tracks = tracks[~near]
    if not len(tracks):
        reasons = "".join(f"; {sentence}" for sentence in sentences)
        raise InputError("tracks", found=f"none of {len(keep)} cells with a patch of {sizes} inside the image{reasons}")
    return tracks.reset_index(drop=True)
