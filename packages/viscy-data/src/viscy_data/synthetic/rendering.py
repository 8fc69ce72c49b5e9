"""From the truth of a FOV to its pixels: cells are drawn as small stamps into a scene, then seen by a microscope."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from viscy_data.synthetic.reporters import (
    REPORTERS,
    CellStamps,
    autofluorescence,
    infected_reporter,
    phase_contrast,
)
from viscy_data.synthetic.specs import ExperimentSpec

__all__ = ["render_fov"]

_TILE = 192  # pixels after which a random field repeats: several cells wide
_GRAINS = {"fine": 0.16, "medium": 0.27, "coarse": 0.7}  # wavelength relative to the cell diameter
_REMODELLING_HOURS = 1.5
_N_AGGREGATES = 4
_HALO_PX = 6
_PHASE_BACKGROUND = 1.0
_FLUORESCENCE_BACKGROUND = 0.15


def render_fov(spec: ExperimentSpec, truth: pd.DataFrame, fov_name: str, *, seed: int = 0) -> np.ndarray:
    """Draw the cells of one FOV.

    Parameters
    ----------
    spec : ExperimentSpec
        The experiment.
    truth : DataFrame
        The table that :func:`viscy_data.synthetic.simulate_tracks` returned for the FOV; it may be empty.
    fov_name : str
        Name of the FOV.
    seed : int, default 0
        The seed of the simulation.

    Returns
    -------
    ndarray, shape (T, C, Z, Y, X), float32
        Whole counts, channels in the order of ``spec.channel_names``.
    """
    _, appearance_rng, noise_rng = spec.generators(seed, fov_name)
    appearance = _Appearance.draw(spec, truth, appearance_rng)
    background = _background(spec, appearance_rng)
    microscope = _Microscope(spec, seed, noise_rng)
    movie = np.empty((spec.n_frames, len(spec.channel_names), *spec.shape), np.float32)
    frames = dict(iter(truth.groupby("t")))
    for frame in range(spec.n_frames):
        scene = background.copy()
        if frame in frames:
            _draw_cells(scene, spec, frames[frame], appearance)
        movie[frame] = microscope.expose(scene)
    return movie


@dataclass(frozen=True)
class _Appearance:
    """What stays with a cell, one row per track id; texture and brightness are inherited along a lineage."""

    fields: dict[str, np.ndarray]  # grain -> (2, tile, tile): two fields that a cell turns into one another
    level: np.ndarray
    tile_origin: np.ndarray  # (n, 2) integers
    turn: np.ndarray
    halo: np.ndarray
    roundness: np.ndarray  # 0 elongated to 1 round, of a cell that is neither infected nor dividing
    outline: np.ndarray  # (n, 3) complex amplitudes of the 2nd to 4th harmonic
    nucleus_shift: np.ndarray  # (n, 2) relative to the radius
    aggregate_shift: np.ndarray  # (n, k, 2) relative to the radius, from the nucleus
    aggregate_width: np.ndarray  # (n, k) relative to the radius

    @classmethod
    def draw(cls, spec: ExperimentSpec, truth: pd.DataFrame, rng: np.random.Generator) -> _Appearance:
        n = int(truth["track_id"].max()) + 1 if len(truth) else 0
        lineage = np.zeros(n, np.int64)
        lineage[truth["track_id"].to_numpy()] = truth["lineage_id"].to_numpy()
        fields = {
            grain: np.stack([_random_field(wavelength * spec.cell_diameter_px, rng) for _ in range(2)])
            for grain, wavelength in _GRAINS.items()
        }
        side = rng.uniform(0, 2 * np.pi, (n, 1)) + rng.normal(0, 0.9, (n, _N_AGGREGATES))
        reach = rng.uniform(0.5, 0.62, (n, _N_AGGREGATES))
        amplitude = rng.normal(0, 1, (n, 3, 2)) @ np.array([1, 1j]) * np.array([0.05, 0.04, 0.02])
        return cls(
            fields=fields,
            level=np.exp(rng.normal(0, 0.2, n))[lineage],
            tile_origin=rng.integers(0, _TILE, (n, 2))[lineage],
            turn=rng.uniform(0, 2 * np.pi, n)[lineage],
            halo=rng.uniform(0.25, 0.35, n)[lineage],
            roundness=rng.uniform(0.0, 0.7, n),
            outline=amplitude,
            nucleus_shift=rng.normal(0, 0.07, (n, 2)),
            aggregate_shift=np.stack([reach * np.sin(side), reach * np.cos(side)], -1),
            aggregate_width=rng.uniform(0.09, 0.15, (n, _N_AGGREGATES)),
        )


def _random_field(wavelength_px: float, rng: np.random.Generator) -> np.ndarray:
    """Return a periodic random field, (tile, tile) float32 of unit variance, around one wavelength."""
    frequency = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None])
    band = np.exp(-0.5 * ((frequency * wavelength_px - 1) / 0.35) ** 2)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((_TILE, _TILE))) * band, s=(_TILE, _TILE))
    return ((field - field.mean()) / field.std()).astype(np.float32)


def _background(spec: ExperimentSpec, rng: np.random.Generator) -> np.ndarray:
    """Return the empty scene, (C, Z, Y, X): medium, and faint structure of the dish in the label-free channel."""
    depth, height, width = spec.shape
    dish = gaussian_filter(rng.standard_normal((height, width)).astype(np.float32), spec.cell_diameter_px / 3)
    scene = np.full((len(spec.channel_names), depth, height, width), _FLUORESCENCE_BACKGROUND, np.float32)
    scene[spec.channel_names.index(spec.label_free_channel)] = _PHASE_BACKGROUND + 0.02 * dish / max(dish.std(), 1e-6)
    return scene


def _draw_cells(scene: np.ndarray, spec: ExperimentSpec, cells: pd.DataFrame, appearance: _Appearance) -> None:
    """Add the cells of one frame to ``scene``, (C, Z, Y, X), in place."""
    stamps, aggregates, half = _stamps(spec, cells, appearance)
    track = cells["track_id"].to_numpy()
    rounding, progress = _column(cells["rounding"]), _column(cells["infection_progress"])
    reporter = infected_reporter(REPORTERS[spec.reporter](stamps), stamps, aggregates, progress)
    total, size = (image.sum((1, 2, 3), keepdims=True) for image in (reporter, stamps.inside))
    reporter *= 0.8 * _column(appearance.level[track]) * size / np.maximum(total, 1e-6)
    for number, channel in enumerate(spec.channel_names):
        if channel == spec.label_free_channel:
            drawn = phase_contrast(stamps, _column(appearance.halo[track]), rounding, progress)
        elif channel == spec.reporter_channel:
            drawn = reporter
        else:
            drawn = autofluorescence(stamps)
        _add_stamps(scene[number], drawn, cells, half)


def _column(values: np.ndarray | pd.Series) -> np.ndarray:
    """Return one number per cell, broadcastable to stamps (n, Z, S, S)."""
    return np.asarray(values, np.float32)[:, None, None, None]


def _add_stamps(plane: np.ndarray, stamps: np.ndarray, cells: pd.DataFrame, half: int) -> None:
    """Add stamps (n, Z, S, S) to ``plane`` (Z, Y, X) around the nearest pixel of each centre, cut at the border."""
    _, height, width = plane.shape
    for stamp, y, x in zip(stamps, np.rint(cells["y"]).astype(int), np.rint(cells["x"]).astype(int), strict=True):
        top, left = max(y - half, 0), max(x - half, 0)
        bottom, right = min(y + half + 1, height), min(x + half + 1, width)
        plane[:, top:bottom, left:right] += stamp[
            :, top - y + half : bottom - y + half, left - x + half : right - x + half
        ]


def _stamps(spec: ExperimentSpec, cells: pd.DataFrame, appearance: _Appearance) -> tuple[CellStamps, np.ndarray, int]:
    """Return geometry and textures of the cells of a frame, their aggregates, and half the size of a stamp."""
    track = cells["track_id"].to_numpy()
    radius = cells["radius"].to_numpy(np.float32)
    half = int(np.ceil(1.5 * radius.max())) + _HALO_PX
    grid = np.arange(-half, half + 1, dtype=np.float32)
    dy = grid[None, :, None] - _fraction(cells["y"])[:, None, None]
    dx = grid[None, None, :] - _fraction(cells["x"])[:, None, None]
    planes = (np.arange(spec.shape[0]) - cells["z"].to_numpy(np.float32)[:, None]) * spec.z_step_px
    height = (planes / (0.6 * radius[:, None]))[:, :, None, None] * (spec.shape[0] > 1)  # a flat image is in focus
    flat = radius[:, None, None]
    y, x = dy / flat, dx / flat
    nucleus_y = y - appearance.nucleus_shift[track, 0, None, None].astype(np.float32)
    nucleus_x = x - appearance.nucleus_shift[track, 1, None, None].astype(np.float32)
    distance = _outline_distance(y, x, cells, appearance)
    nucleus = np.hypot(nucleus_y, nucleus_x) / CellStamps.nucleus_radius
    stamps = CellStamps(
        radius=_column(radius),
        distance=np.hypot(distance[:, None], height),
        nucleus=np.hypot(nucleus[:, None], height / CellStamps.nucleus_radius),
        **_textures(spec, cells, appearance, half),
    )
    aggregates = np.zeros_like(distance)
    for number in range(_N_AGGREGATES):
        ay, ax = appearance.aggregate_shift[track, number].astype(np.float32).T[..., None, None]
        width = appearance.aggregate_width[track, number, None, None].astype(np.float32)
        aggregates += np.exp(-0.5 * ((nucleus_y - ay) ** 2 + (nucleus_x - ax) ** 2) / width**2)
    return stamps, aggregates[:, None] * np.exp(-0.5 * (2 * height) ** 2), half


def _fraction(coordinate: pd.Series) -> np.ndarray:
    values = coordinate.to_numpy(np.float32)
    return values - np.rint(values)


def _outline_distance(y: np.ndarray, x: np.ndarray, cells: pd.DataFrame, appearance: _Appearance) -> np.ndarray:
    """Return the distance (n, S, S) from the centre, 1 on the outline: an ellipse along the heading, with lobes."""
    track = cells["track_id"].to_numpy()
    resting = appearance.roundness[track]
    resting = resting + 0.25 * cells["infection_progress"].to_numpy() * (1 - resting)
    rounding = np.maximum(cells["rounding"].to_numpy(), resting).astype(np.float32)[:, None, None]
    heading = cells["heading"].to_numpy(np.float32)[:, None, None]
    stretch = np.sqrt(1 + 0.4 * (1 - rounding))
    along = (x * np.cos(heading) + y * np.sin(heading)) / stretch
    across = (y * np.cos(heading) - x * np.sin(heading)) * stretch
    distance = np.hypot(along, across)
    direction = (along + 1j * across) / np.maximum(distance, 1e-3)
    power, lobes = direction, np.zeros_like(distance)
    for amplitude in appearance.outline[track].astype(np.complex64).T:
        power = power * direction
        lobes += (amplitude[:, None, None] * power).real
    return distance / np.clip(1 + (1 - rounding) * lobes, 0.7, 1.35)


def _textures(spec: ExperimentSpec, cells: pd.DataFrame, appearance: _Appearance, half: int) -> dict[str, np.ndarray]:
    """Return the random fields of each cell, (n, Z, S, S): they move with the cell and change over hours."""
    track = cells["track_id"].to_numpy()
    grid = np.arange(-half, half + 1)
    rows, columns = ((appearance.tile_origin[track, axis, None] + grid) % _TILE for axis in (0, 1))
    turn = appearance.turn[track] + cells["hours_post_infection"].to_numpy() / _REMODELLING_HOURS
    turn = (turn[:, None] + 0.6 * np.arange(spec.shape[0])).astype(np.float32)[:, :, None, None]
    textures = {}
    for grain, pair in appearance.fields.items():
        first, second = pair[:, rows[:, :, None], columns[:, None, :]]
        textures[grain] = np.cos(turn) * first[:, None] + np.sin(turn) * second[:, None]
    return textures


class _Microscope:
    """Blur, illumination, gain, noise and offset of one experiment."""

    def __init__(self, spec: ExperimentSpec, seed: int, rng: np.random.Generator) -> None:
        self.nuisance, self.rng = spec.nuisance, rng
        angle = np.random.default_rng([seed, zlib.crc32(spec.name.encode())]).uniform(0, 2 * np.pi)
        y, x = (np.linspace(-0.5, 0.5, size, dtype=np.float32) for size in spec.shape[1:])
        slope = np.sin(angle) * y[:, None] + np.cos(angle) * x
        self.illumination = (1 + self.nuisance.illumination * slope).astype(np.float32)
        self.sigma = (0, 2 * self.nuisance.blur_px / spec.z_step_px, self.nuisance.blur_px, self.nuisance.blur_px)

    def expose(self, scene: np.ndarray) -> np.ndarray:
        """Return whole counts, (C, Z, Y, X) float32, of a scene of the same shape."""
        signal = self.illumination * gaussian_filter(scene, self.sigma, mode="nearest")
        noise = self.rng.standard_normal(scene.shape, dtype=np.float32)
        signal += self.nuisance.noise * np.sqrt(np.clip(signal, 0.05, None)) * noise
        return np.rint(self.nuisance.offset + self.nuisance.gain * signal)
