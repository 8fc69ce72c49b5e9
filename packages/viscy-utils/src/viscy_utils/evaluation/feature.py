"""Features of cells that need no network: of patches and masks, and of tracks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from viscy_data.optional import require
from viscy_utils.evaluation.patch_measures import co_occurrence, radial_slope, rescaled, spectral_entropy

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AngularFeatures",
    "CellFeatures",
    "DisplacementFeatures",
    "DynamicFeatures",
    "IntensityFeatures",
    "MorphologyFeatures",
    "SymmetryDescriptor",
    "TextureFeatures",
    "TrackFeatures",
]

_FLOOR = 1e-10
_ZERNIKE_RADIUS = 32


class IntensityFeatures(TypedDict):
    """Of the pixels as they are."""

    mean_intensity: float
    std_dev: float
    min_intensity: float
    max_intensity: float
    kurtosis: float
    skewness: float
    spectral_entropy: float
    iqr: float
    weighted_intensity_gradient: float


class TextureFeatures(TypedDict):
    """Of the pixels rescaled to 0 to 255."""

    spectral_entropy: float
    contrast: float
    entropy: float
    homogeneity: float
    dissimilarity: float
    texture: float


class MorphologyFeatures(TypedDict):
    """Of the mask, in pixels."""

    area: float
    perimeter: float
    perimeter_area_ratio: float
    eccentricity: float
    intensity_localization: float
    masked_intensity: float
    masked_area: float


class SymmetryDescriptor(TypedDict):
    """Of the pixels rescaled to 0 to 1."""

    zernike_std: float
    zernike_mean: float
    radial_intensity_gradient: float


class TrackFeatures(TypedDict):
    """Speeds, in units of place per unit of time; the list begins with 0 for the first row."""

    instantaneous_velocity: list[float]
    mean_velocity: float
    max_velocity: float
    min_velocity: float
    std_velocity: float


class DisplacementFeatures(TypedDict):
    """How far a track goes, and how straight."""

    total_distance: float
    net_displacement: float
    directional_persistence: float


class AngularFeatures(TypedDict):
    """How fast a track turns, in radians per unit of time."""

    mean_angular_velocity: float
    max_angular_velocity: float
    std_angular_velocity: float


class CellFeatures:
    """Features of a patch of one cell.

    Parameters
    ----------
    image : array_like, shape (Y, X)
    segmentation_mask : array_like of int, shape (Y, X), optional
        Labels of regions; needed for morphology.

    Raises
    ------
    ValueError
        If the image is not 2D, or the mask of another shape.
    """

    def __init__(self, image: ArrayLike, segmentation_mask: ArrayLike | None = None) -> None:
        self.image = np.asarray(image, dtype=np.float64)
        self.segmentation_mask = None if segmentation_mask is None else np.asarray(segmentation_mask)
        if self.image.ndim != 2:
            raise ValueError(f"image: found shape {self.image.shape}, expected (Y, X)")
        if self.segmentation_mask is not None and self.segmentation_mask.shape != self.image.shape:
            raise ValueError(
                f"segmentation_mask: found shape {self.segmentation_mask.shape}, expected that of the image"
            )
        self.image_normalized = rescaled(self.image)
        self.intensity_features: IntensityFeatures | None = None
        self.texture_features: TextureFeatures | None = None
        self.morphology_features: MorphologyFeatures | None = None
        self.symmetry_descriptor: SymmetryDescriptor | None = None

    def compute_intensity_features(self) -> None:
        """Fill ``intensity_features``; kurtosis (0 for a normal distribution) and skewness of a constant patch are NaN.

        ``weighted_intensity_gradient`` is the slope, by distance from the middle, of the magnitude of the gradient
        times the image.
        """
        image, (height, width) = self.image, self.image.shape
        centred, std = image - image.mean(), image.std()
        moments = [np.mean((centred / std) ** order) if std else np.nan for order in (3, 4)]
        weighted = np.hypot(*np.gradient(image)) * image
        self.intensity_features = IntensityFeatures(
            mean_intensity=float(image.mean()),
            std_dev=float(std),
            min_intensity=float(image.min()),
            max_intensity=float(image.max()),
            kurtosis=float(moments[1] - 3),
            skewness=float(moments[0]),
            spectral_entropy=spectral_entropy(image),
            iqr=float(np.subtract(*np.percentile(image, (75, 25)))),
            weighted_intensity_gradient=radial_slope(weighted, (height // 2, width // 2), min(height // 2, width // 2)),
        )

    def compute_texture_features(self) -> None:
        """Fill ``texture_features``: co-occurrence of diagonal neighbours, and Haralick's features (1973).

        ``texture`` is the mean over Haralick's features of their range over four directions.
        """
        mahotas = require("mahotas", extra="features", package="viscy-utils")
        levels = (255 * self.image_normalized).astype(np.uint8)
        shares = co_occurrence(levels)
        apart = np.abs(np.subtract.outer(np.arange(256.0), np.arange(256.0)))
        entropy = spectral_entropy(self.image)
        self.texture_features = TextureFeatures(
            spectral_entropy=entropy,
            contrast=float(np.sum(shares * apart**2)),
            entropy=entropy,
            homogeneity=float(np.sum(shares / (1 + apart**2))),
            dissimilarity=float(np.sum(shares * apart)),
            texture=float(np.ptp(mahotas.features.haralick(levels), axis=0).mean()),
        )

    def compute_morphology_features(self) -> None:
        """Fill ``morphology_features``.

        Area, perimeter and eccentricity are means over regions, the ratio is of their sums. ``intensity_localization``
        is the mean of the image, each pixel weighted by its distance from the edge of the mask. ``masked_area`` and
        ``masked_intensity`` are of the pixels above Otsu's threshold: how many, and their sum over all pixels.

        Raises
        ------
        ValueError
            Without a mask, or with an empty one.
        """
        if self.segmentation_mask is None or not self.segmentation_mask.any():
            raise ValueError("morphology needs a segmentation_mask with a region")
        for module in ("skimage", "scipy"):
            require(module, extra="features", package="viscy-utils")
        from scipy.ndimage import distance_transform_edt
        from skimage.filters import gaussian, threshold_otsu
        from skimage.measure import regionprops

        regions = regionprops(self.segmentation_mask.astype(np.int64))
        areas, perimeters = ([getattr(region, name) for region in regions] for name in ("area", "perimeter"))
        depth = distance_transform_edt(self.segmentation_mask)
        smooth = gaussian(self.image, sigma=0.6)
        bright = self.image >= threshold_otsu(smooth)
        self.morphology_features = MorphologyFeatures(
            area=float(np.mean(areas)),
            perimeter=float(np.mean(perimeters)),
            perimeter_area_ratio=float(np.sum(perimeters) / np.sum(areas)),
            eccentricity=float(np.mean([region.eccentricity for region in regions])),
            intensity_localization=float(np.sum(self.image * depth) / (np.sum(depth) + _FLOOR)),
            masked_intensity=float(np.mean(np.where(bright, self.image, 0))),
            masked_area=float(bright.sum()),
        )

    def compute_symmetry_descriptor(self) -> None:
        """Fill ``symmetry_descriptor``: Zernike moments of radius 32, and the slope of the image from the middle."""
        mahotas = require("mahotas", extra="features", package="viscy-utils")
        moments = mahotas.features.zernike_moments(self.image_normalized, _ZERNIKE_RADIUS)
        center = (self.image.shape[0] / 2, self.image.shape[1] / 2)
        self.symmetry_descriptor = SymmetryDescriptor(
            zernike_std=float(np.std(moments)),
            zernike_mean=float(np.mean(moments)),
            radial_intensity_gradient=radial_slope(self.image_normalized, center),
        )

    def compute_all_features(self) -> pd.DataFrame:
        """Compute everything, morphology if there is a mask, and return it as :meth:`to_df`."""
        self.compute_intensity_features()
        self.compute_texture_features()
        self.compute_symmetry_descriptor()
        if self.segmentation_mask is not None:
            self.compute_morphology_features()
        return self.to_df()

    def to_df(self) -> pd.DataFrame:
        """Return what has been computed as a table of one row."""
        pandas = require("pandas", extra="features", package="viscy-utils")
        groups = (self.intensity_features, self.texture_features, self.morphology_features, self.symmetry_descriptor)
        return pandas.DataFrame([_joined(*groups)])


class DynamicFeatures:
    """Features of the motion of tracks.

    Parameters
    ----------
    tracking_df : DataFrame
        Columns ``track_id, t, x, y`` of one FOV, in any order of rows.

    Raises
    ------
    ValueError
        If a column is missing, or ``t``, ``x`` or ``y`` holds no numbers.
    """

    def __init__(self, tracking_df: pd.DataFrame) -> None:
        missing = [name for name in ("track_id", "t", "x", "y") if name not in tracking_df]
        if missing:
            raise ValueError(f"tracking_df: no column {', '.join(missing)}")
        text = [name for name in ("t", "x", "y") if tracking_df[name].dtype.kind not in "iuf"]
        if text:
            raise ValueError(f"tracking_df: no numbers in the column {', '.join(text)}")
        self.tracking_df = tracking_df
        self.velocity_features: TrackFeatures | None = None
        self.displacement_features: DisplacementFeatures | None = None
        self.angular_features: AngularFeatures | None = None

    def compute_all_features(self, track_id: int | str) -> pd.DataFrame:
        """Compute speed, displacement and turning of one track.

        Raises
        ------
        ValueError
            If there is no such track.
        """
        track = self.tracking_df[self.tracking_df["track_id"] == track_id].sort_values("t")
        if not len(track):
            raise ValueError(f"no track {track_id}")
        places, t = track[["x", "y"]].to_numpy(dtype=float), track["t"].to_numpy(dtype=float)
        steps, times = np.diff(places, axis=0), np.maximum(np.diff(t), _FLOOR)
        lengths = np.linalg.norm(steps, axis=1)
        speeds = np.concatenate([[0.0], lengths / times])
        self.velocity_features = TrackFeatures(
            instantaneous_velocity=speeds.tolist(),
            mean_velocity=float(speeds.mean()),
            max_velocity=float(speeds.max()),
            min_velocity=float(speeds.min()),
            std_velocity=float(speeds.std()),
        )
        total, net = float(lengths.sum()), float(np.linalg.norm(places[-1] - places[0]))
        self.displacement_features = DisplacementFeatures(
            total_distance=total, net_displacement=net, directional_persistence=net / total if total else 0.0
        )
        turning = _angles(steps, lengths) / times[1:] if len(steps) > 1 else np.zeros(1)
        self.angular_features = AngularFeatures(
            mean_angular_velocity=float(turning.mean()),
            max_angular_velocity=float(turning.max()),
            std_angular_velocity=float(turning.std()),
        )
        return self.to_df()

    def to_df(self) -> pd.DataFrame:
        """Return what has been computed as a table of one row, empty before."""
        pandas = require("pandas", extra="features", package="viscy-utils")
        groups = (self.velocity_features, self.displacement_features, self.angular_features)
        row = _joined(*groups)
        return pandas.DataFrame([row] if row else [])


def _joined(*groups: Any) -> dict[str, Any]:
    """Put the features of the groups that have been computed into one row."""
    row: dict[str, Any] = {}
    for group in groups:
        row |= group or {}
    return row


def _angles(steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Angle between each step and the one before, 0 to pi; 0 where a cell stood still."""
    norms = lengths[:-1] * lengths[1:]
    moving = norms > 0
    cosines = np.ones(len(norms))
    cosines[moving] = np.sum(steps[:-1] * steps[1:], axis=1)[moving] / norms[moving]
    return np.arccos(np.clip(cosines, -1, 1))
