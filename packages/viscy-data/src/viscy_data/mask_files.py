"""Segmentations as Cellpose leaves them: one PNG per FOV and slice."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from viscy_data.errors import InputError, MissingInputError
from viscy_data.optional import require

__all__ = ["find_masks", "read_mask"]

_PATTERN = "*cp_masks.png"


def find_masks(folder: str | Path) -> dict[tuple[int, int, int], Path]:
    """Find the masks of a folder.

    Parameters
    ----------
    folder : str or Path
        With files such as ``img_p003_z12_cp_masks.png``.

    Returns
    -------
    dict of (FOV number, frame, slice) to Path
        The frame is always 0: the names have none.

    Raises
    ------
    MissingInputError
        If there is no mask.
    InputError
        If a name has no FOV (``_p`` and three digits) or slice (``_z`` and digits), or two masks have the same.
    """
    paths = sorted(Path(folder).glob(_PATTERN))
    if not paths:
        raise MissingInputError(str(folder), field="ground_truth_masks", found="none", expected=f"files {_PATTERN}")
    masks: dict[tuple[int, int, int], Path] = {}
    for path in paths:
        fov, z = re.search(r"_p(\d{3})", path.name), re.search(r"_z(\d+)", path.name)
        if fov is None or z is None:
            raise InputError(str(path), found="a name without FOV and slice", expected="..._p003_z12_cp_masks.png")
        key = int(fov[1]), 0, int(z[1])
        if key in masks:
            raise InputError(str(path), found=f"a second mask of FOV {key[0]}, slice {key[2]}", expected="one")
        masks[key] = path
    return masks


def read_mask(path: Path) -> np.ndarray:
    """Read a mask; int16, (Y, X)."""
    image = require("PIL.Image", extra="livecell")
    with image.open(path) as opened:
        return np.asarray(opened).astype(np.int16)
