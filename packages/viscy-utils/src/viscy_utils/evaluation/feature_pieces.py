"""Features of many cells, piece by piece, wherever a piece is computed.

A piece is some cells of one FOV in the order of their frames, so that a plane that they share is decoded once. It holds
all that a process on another machine has to know, and gives the same numbers there.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from viscy_data.patch_store import CellBoxes
from viscy_data.patches import PatchReader
from viscy_data.stores import FovInfo, open_array, read_block
from viscy_utils.evaluation.feature import (
    AngularFeatures,
    CellFeatures,
    DisplacementFeatures,
    DynamicFeatures,
    IntensityFeatures,
    MorphologyFeatures,
    SymmetryDescriptor,
    TextureFeatures,
    TrackFeatures,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

__all__ = ["FeaturePiece", "LabelImage", "PieceFeatures", "compute_piece", "feature_names"]

_POOL_BYTES = 1 << 28


def _named(*groups: type) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group.__annotations__))


_PIXELS = _named(IntensityFeatures, TextureFeatures, SymmetryDescriptor)
_SHAPE = ("area", "perimeter", "perimeter_area_ratio", "eccentricity")
_MASKED = tuple(name for name in _named(MorphologyFeatures) if name not in _SHAPE)
_MOTION = _named(TrackFeatures, DisplacementFeatures, AngularFeatures)


def feature_names(channels: Sequence[str], *, with_masks: bool) -> list[str]:
    """Name the features of a cell in their order.

    Parameters
    ----------
    channels : sequence of str
    with_masks : bool
        Whether there are label images.

    Returns
    -------
    list of str
        ``<channel>_<feature>`` for each channel, then those of the mask alone, then those of the track.
    """
    own = _PIXELS + (_MASKED if with_masks else ())
    shape = _SHAPE if with_masks else ()
    return [*(f"{channel}_{name}" for channel in channels for name in own), *shape, *_MOTION]


@dataclass(frozen=True)
class LabelImage:
    """Where the masks of the cells of a FOV are.

    Parameters
    ----------
    fov : FovInfo
        The label image: each object has a number of its own in a frame, 0 is background.
    channel, z : int
        Of its array.
    """

    fov: FovInfo
    channel: int
    z: int


@dataclass(frozen=True, eq=False)
class FeaturePiece:
    """Cells of one FOV.

    Parameters
    ----------
    boxes : CellBoxes
        Of N cells of one FOV, one slice deep.
    rows : ndarray of int64, shape (N,)
        Of the cells in their dataset.
    labels : LabelImage, optional
    first : int
        How many cells of the FOV are in pieces before this one.
    tracks : pandas.DataFrame, optional
        All cells of the FOV, for the first piece of it: ``track_id``, ``t``, ``y``, ``x``.
    """

    boxes: CellBoxes
    rows: NDArray[np.int64]
    labels: LabelImage | None
    first: int
    tracks: pd.DataFrame | None


class PieceFeatures(NamedTuple):
    """What is computed of a piece.

    Parameters
    ----------
    cells : ndarray of float32, shape (N, F)
        Of the pixels and masks of the cells, NaN where there are none.
    motion : ndarray of float32, shape (M, K), or None
        Of the tracks of all cells of the FOV, where the piece has them.
    """

    cells: NDArray[np.float32]
    motion: NDArray[np.float32] | None


def compute_piece(piece: FeaturePiece) -> PieceFeatures:
    """Compute the features of the cells of a piece.

    The mask of a cell is the object under its nearest pixel.

    Raises
    ------
    InputError
        If pixels cannot be read.
    """
    boxes = piece.boxes
    here, t = np.zeros(len(piece.rows), np.int64), boxes.places[:, 1]
    starts = boxes.starts(boxes.yx_size)
    z = here + boxes.slices.start
    images = _reader(boxes.fovs[0]).read(here, t, boxes.channels[here], z, *starts.T, boxes.size[1:])[:, :, 0]
    masks = None if piece.labels is None else _masks(piece.labels, boxes, starts)
    present = boxes.channels[0] >= 0
    cells = [_of_cell(own, present, None if masks is None else masks[number]) for number, own in enumerate(images)]
    motion = None if piece.tracks is None else _motion(piece.tracks)
    return PieceFeatures(np.array(cells, np.float32), motion)


@functools.lru_cache(maxsize=4)
def _reader(fov: FovInfo) -> PatchReader:
    return PatchReader([fov], cache_pool_bytes=_POOL_BYTES)


def _masks(labels: LabelImage, boxes: CellBoxes, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Cut out the objects under the cells, (N, Y, X); empty for a cell on background."""
    array, slices = open_array(labels.fov), slice(labels.z, labels.z + 1)
    masks = np.zeros((len(starts), *boxes.yx_size), bool)
    for frame in np.unique(boxes.places[:, 1]).tolist():
        plane = read_block(labels.fov, array, range(frame, frame + 1), [labels.channel], slices)[0, 0, 0]
        for row in np.flatnonzero(boxes.places[:, 1] == frame):
            (y, x), (height, width) = starts[row], boxes.yx_size
            label = plane[tuple(boxes.places[row, 2:])]
            masks[row] = (plane[y : y + height, x : x + width] == label) & (label != 0)
    return masks


def _of_cell(images: NDArray, present: NDArray[np.bool_], mask: NDArray[np.bool_] | None) -> list[float]:
    """Compute the features of one cell, channel by channel; NaN where a channel or a mask is missing."""
    names = _PIXELS if mask is None else _PIXELS + _MASKED
    of_channels, shape = [], {}
    for image, exists in zip(images, present, strict=True):
        own = _of_image(image, mask) if exists and np.isfinite(image).all() else {}
        of_channels += [own.get(name, np.nan) for name in names]
        shape = shape or own
    return of_channels if mask is None else of_channels + [shape.get(name, np.nan) for name in _SHAPE]


def _of_image(image: NDArray, mask: NDArray[np.bool_] | None) -> dict[str, float]:
    features = CellFeatures(image, mask)
    features.compute_intensity_features()
    features.compute_texture_features()
    features.compute_symmetry_descriptor()
    groups = [features.intensity_features, features.texture_features, features.symmetry_descriptor]
    if mask is not None and mask.any():
        features.compute_morphology_features()
        groups.append(features.morphology_features)
    return {name: value for group in groups for name, value in group.items()}


def _motion(tracks: pd.DataFrame) -> NDArray[np.float32]:
    """Compute the features of all tracks of a FOV, (M, K), the speed of each cell since its frame before first."""
    values = np.empty((len(tracks), len(_MOTION)), np.float32)
    for track, rows in tracks.groupby("track_id", sort=False).indices.items():
        own = tracks.iloc[rows]
        computed = DynamicFeatures(own).compute_all_features(track).iloc[0]
        in_time = rows[np.argsort(own["t"].to_numpy(), kind="stable")]
        for column, name in enumerate(_MOTION):
            values[in_time, column] = computed[name]
    return values
