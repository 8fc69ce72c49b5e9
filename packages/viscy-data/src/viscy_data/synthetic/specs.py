"""What a synthetic experiment is made of: biology, acquisition, and the nuisance that separates experiments."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from viscy_data.checks import near_matches
from viscy_data.synthetic.reporters import REPORTERS

__all__ = ["ExperimentSpec", "Nuisance"]

_POSITIVE = (
    *("fovs_per_well", "n_frames", "interval_minutes", "cell_diameter_px", "cell_cycle_hours"),
    *("infection_mean_hours", "infection_switch_hours", "z_step_px"),
)
_NOT_NEGATIVE = ("n_cells", "speed_px_per_hour", "loss_per_hour", "entering_per_hour")


@dataclass(frozen=True)
class Nuisance:
    """How a microscope turns a scene into counts.

    ``counts = offset + illumination(y, x) * gain * blurred scene + noise``; the scene is about 1 inside a cell.

    Parameters
    ----------
    gain : float, default 400.0
        Counts per unit of signal.
    offset : float, default 100.0
        Counts without light.
    blur_px : float, default 0.6
        Standard deviation of the point spread function in Y and X, in pixels; twice as far along Z.
    illumination : float, default 0.1
        Relative change of the illumination over the field, along a direction drawn once per experiment.
    noise : float, default 0.04
        Standard deviation of the noise at signal 1, relative to the gain; it grows with the root of the signal.
    """

    gain: float = 400.0
    offset: float = 100.0
    blur_px: float = 0.6
    illumination: float = 0.1
    noise: float = 0.04

    def __post_init__(self) -> None:
        if self.gain <= 0:
            raise ValueError(f"gain must be positive, got {self.gain}")
        if not 0 <= self.illumination < 2:
            raise ValueError(f"illumination must be in [0, 2), got {self.illumination}")
        for name in ("blur_px", "noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True)
class ExperimentSpec:
    """One synthetic experiment.

    Parameters
    ----------
    name : str
        Name of the experiment and of its folder.
    reporter : str, default "er"
        What the reporter marks: a key of :data:`viscy_data.synthetic.REPORTERS`.
    condition_wells : mapping of str to tuple of str
        Wells of each condition, such as ``{"uninfected": ("A/1",), "infected": ("B/1",)}``.
    infected_conditions : tuple of str, default ("infected",)
        Conditions in whose wells cells become infected.
    fovs_per_well : int, default 1
        FOVs are named ``<well>/0``, ``<well>/1``, ...
    n_frames, n_cells : int
        Frames of each FOV, and cells in its first frame.
    shape : tuple of int, default (1, 256, 256)
        (Z, Y, X) in pixels.
    interval_minutes : float, default 30.0
        Time between frames.
    start_hpi : float, default 4.0
        Hours post infection at the first frame.
    channel_names : tuple of str
        All channels in the order of the store. Those that are neither ``label_free_channel`` nor
        ``reporter_channel`` show unspecific autofluorescence.
    label_free_channel, reporter_channel : str
        Which of them are the label-free channel and the reporter.
    nuisance : Nuisance
        The microscope.
    cell_diameter_px : float, default 24.0
        Mean diameter; a cell doubles its area between divisions.
    cell_cycle_hours : float, default 18.0
        Mean time between divisions.
    speed_px_per_hour : float, default 5.0
        Mean speed of the persistent random walk.
    loss_per_hour : float, default 0.01
        Rate at which a track ends without a division.
    entering_per_hour : float, default 0.5
        Mean number of cells that enter a FOV at its border.
    infection_onset_hpi, infection_mean_hours : float, default 4.0, 6.0
        A cell of an infected well switches an exponentially distributed time after the onset.
    infection_switch_hours : float, default 2.0
        How long the change of texture takes; the infection time is its middle.
    z_step_px : float, default 4.0
        Distance of two planes in units of the pixel size, for ``Z > 1``.

    Raises
    ------
    ValueError
        For values that contradict each other, naming the field.
    """

    name: str
    reporter: str = "er"
    condition_wells: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"uninfected": ("A/1",), "infected": ("B/1",)}
    )
    infected_conditions: tuple[str, ...] = ("infected",)
    fovs_per_well: int = 1
    n_frames: int = 12
    n_cells: int = 20
    shape: tuple[int, int, int] = (1, 256, 256)
    interval_minutes: float = 30.0
    start_hpi: float = 4.0
    channel_names: tuple[str, ...] = ("Phase3D", "GFP")
    label_free_channel: str = "Phase3D"
    reporter_channel: str = "GFP"
    nuisance: Nuisance = field(default_factory=Nuisance)
    cell_diameter_px: float = 24.0
    cell_cycle_hours: float = 18.0
    speed_px_per_hour: float = 5.0
    loss_per_hour: float = 0.01
    entering_per_hour: float = 0.5
    infection_onset_hpi: float = 4.0
    infection_mean_hours: float = 6.0
    infection_switch_hours: float = 2.0
    z_step_px: float = 4.0

    def __post_init__(self) -> None:
        if self.reporter not in REPORTERS:
            raise ValueError(f"reporter {self.reporter!r} is unknown: {near_matches(self.reporter, sorted(REPORTERS))}")
        if len(set(self.channel_names)) != len(self.channel_names):
            raise ValueError(f"channel_names {self.channel_names} must be unique")
        for channel in self.source_channel:
            if channel not in self.channel_names:
                raise ValueError(f"channel {channel!r} is not one of the channel_names {self.channel_names}")
        wells = [well for wells in self.condition_wells.values() for well in wells]
        if not wells or len(set(wells)) != len(wells):
            raise ValueError(f"condition_wells must name each well once, and at least one: got {wells}")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"shape must be three positive sizes (Z, Y, X), got {self.shape}")

    @property
    def source_channel(self) -> tuple[str, str]:
        """The label-free channel and the reporter, as a config lists them."""
        return self.label_free_channel, self.reporter_channel

    @property
    def fov_conditions(self) -> dict[str, str]:
        """Condition of each FOV, in the order of the conditions."""
        return {
            f"{well}/{number}": condition
            for condition, wells in self.condition_wells.items()
            for well in wells
            for number in range(self.fovs_per_well)
        }

    def hpi(self, frame: int) -> float:
        """Hours post infection at a frame."""
        return self.start_hpi + frame * self.interval_minutes / 60

    def generators(self, seed: int, fov_name: str) -> tuple[np.random.Generator, ...]:
        """Return independent generators for the motion, appearance and noise of one FOV.

        They depend on the seed and the two names only, hence not on the order in which FOVs are made.
        """
        entropy = [seed, zlib.crc32(self.name.encode()), zlib.crc32(fov_name.encode())]
        return tuple(np.random.default_rng(child) for child in np.random.SeedSequence(entropy).spawn(3))
