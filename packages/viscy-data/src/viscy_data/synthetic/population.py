"""Cells that move, grow, divide, come, go and become infected: the truth of one FOV, without pixels."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from viscy_data.synthetic.specs import ExperimentSpec

__all__ = ["TRACK_COLUMNS", "simulate_tracks"]

TRACK_COLUMNS = ("track_id", "t", "z", "y", "x", "id", "parent_track_id", "parent_id")
"""Columns of a tracking CSV in order; ``z`` is left out of flat experiments."""

_MAX_STEP_HOURS = 0.25
_PERSISTENCE_HOURS = 1.5
_ROUNDING_HOURS = 0.75
_CYCLE_SPREAD = 0.12
_SIZE_SPREAD = 0.05


@dataclass
class _Cells:
    """State of the living cells of a FOV, one entry per cell."""

    track_id: np.ndarray
    parent_track_id: np.ndarray
    previous_id: np.ndarray
    lineage_id: np.ndarray
    generation: np.ndarray
    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    heading: np.ndarray
    size: np.ndarray
    born_hpi: np.ndarray
    divides_hpi: np.ndarray
    infection_hpi: np.ndarray

    def __len__(self) -> int:
        return len(self.track_id)

    def take(self, which: np.ndarray) -> _Cells:
        return _Cells(*(getattr(self, entry.name)[which] for entry in fields(self)))

    def join(self, *others: _Cells) -> _Cells:
        groups = (self, *others)
        return _Cells(*(np.concatenate([getattr(g, entry.name) for g in groups]) for entry in fields(self)))

    def age(self, hpi: float) -> np.ndarray:
        return np.clip((hpi - self.born_hpi) / (self.divides_hpi - self.born_hpi), 0, 1)

    def radius(self, hpi: float) -> np.ndarray:
        return self.size * 2 ** ((self.age(hpi) - 0.5) / 2)  # the area doubles from birth to division

    def rounding(self, hpi: float) -> np.ndarray:
        hours = np.minimum(self.divides_hpi - hpi, hpi - self.born_hpi)
        return np.clip(1 - hours / _ROUNDING_HOURS, 0, 1)


class _Population:
    """The living cells of one FOV and the rules by which they change."""

    def __init__(self, spec: ExperimentSpec, infected_well: bool, rng: np.random.Generator) -> None:
        self.spec, self.infected_well, self.rng = spec, infected_well, rng
        self.n_tracks = 0
        self.cells = self._arrivals(spec.n_cells, spec.start_hpi)
        cells = self.cells
        # Cells of the first frame are anywhere in their cycle and have had time to arrange themselves.
        cycle = cells.divides_hpi - cells.born_hpi
        cells.born_hpi = spec.start_hpi - rng.uniform(0, 1, len(cells)) * cycle
        cells.divides_hpi = cells.born_hpi + cycle
        cells.infection_hpi = self._infection_times(np.full(len(cells), -np.inf))
        cells.y = rng.uniform(0, spec.shape[1] - 1, len(cells))
        cells.x = rng.uniform(0, spec.shape[2] - 1, len(cells))
        for _ in range(40):
            cells.y, cells.x = self._keep_inside(*_pushed_apart(cells, spec.start_hpi))

    def advance(self, frame: int) -> None:
        """Move on from ``frame`` to the next: walk, lose, divide, enter."""
        now, then = self.spec.hpi(frame), self.spec.hpi(frame + 1)
        divides = self.cells.divides_hpi <= then
        movers, mothers = self.cells.take(~divides), self.cells.take(divides)
        self._walk(movers, now, then - now)
        entering = self.rng.poisson(self.spec.entering_per_hour * (then - now))
        self.cells = self._remaining(movers, then - now).join(
            self._daughters(mothers, then), self._arrivals(entering, then)
        )

    def _walk(self, cells: _Cells, hpi: float, hours: float) -> None:
        n_steps = int(np.ceil(hours / _MAX_STEP_HOURS))
        step = hours / n_steps
        for _ in range(n_steps):
            cells.heading = cells.heading + self.rng.normal(0, np.sqrt(2 * step / _PERSISTENCE_HOURS), len(cells))
            speed = self.spec.speed_px_per_hour * (1 - 0.8 * cells.rounding(hpi))
            cells.y = cells.y + speed * step * np.sin(cells.heading)
            cells.x = cells.x + speed * step * np.cos(cells.heading)
            cells.y, cells.x = _pushed_apart(cells, hpi)

    def _remaining(self, cells: _Cells, hours: float) -> _Cells:
        _, height, width = self.spec.shape
        inside = (cells.y >= 0) & (cells.y <= height - 1) & (cells.x >= 0) & (cells.x <= width - 1)
        lost = self.rng.uniform(size=len(cells)) < -np.expm1(-self.spec.loss_per_hour * hours)
        return cells.take(inside & ~lost)

    def _daughters(self, mothers: _Cells, hpi: float) -> _Cells:
        daughters = mothers.take(np.repeat(np.arange(len(mothers)), 2))
        n = len(daughters)
        side = np.tile([1.0, -1.0], len(mothers)) * 0.55 * daughters.size
        axis = np.repeat(self.rng.uniform(0, 2 * np.pi, len(mothers)), 2)
        daughters.y, daughters.x = self._keep_inside(
            daughters.y + side * np.sin(axis), daughters.x + side * np.cos(axis)
        )
        daughters.heading = axis + np.where(side > 0, 0.0, np.pi)
        daughters.parent_track_id = daughters.track_id
        daughters.track_id = self._new_track_ids(n)
        daughters.generation = daughters.generation + 1
        daughters.born_hpi, daughters.divides_hpi = np.full(n, hpi), hpi + self._cycles(n)
        daughters.infection_hpi = np.where(
            daughters.infection_hpi <= hpi, daughters.infection_hpi, self._infection_times(np.full(n, hpi))
        )
        return daughters

    def _arrivals(self, n: int, hpi: float) -> _Cells:
        """Return cells at the border that head inwards."""
        depth, height, width = self.spec.shape
        side = self.rng.integers(0, 4, n)
        along = self.rng.uniform(0, 1, n)
        y = np.choose(side, [np.zeros(n), np.full(n, height - 1.0), along * (height - 1), along * (height - 1)])
        x = np.choose(side, [along * (width - 1), along * (width - 1), np.zeros(n), np.full(n, width - 1.0)])
        inwards = np.choose(side, np.array([0.5, -0.5, 0.0, 1.0])[:, None] * np.pi)
        tracks, none = self._new_track_ids(n), np.full(n, -1, np.int64)
        age = self.rng.uniform(0.1, 0.7, n) * self.spec.cell_cycle_hours
        born = hpi - age
        return _Cells(
            track_id=tracks,
            parent_track_id=none,
            previous_id=none,
            lineage_id=tracks,
            generation=np.zeros(n, np.int64),
            z=np.clip((depth - 1) / 2 + self.rng.normal(0, 0.05 * depth, n), 0, depth - 1),
            y=y,
            x=x,
            heading=inwards + self.rng.uniform(-1, 1, n),
            size=self.spec.cell_diameter_px / 2 * np.exp(self.rng.normal(0, _SIZE_SPREAD, n)),
            born_hpi=born,
            divides_hpi=np.maximum(born + self._cycles(n), hpi + 0.1 * self.spec.cell_cycle_hours),
            infection_hpi=self._infection_times(np.full(n, -np.inf)),
        )

    def _cycles(self, n: int) -> np.ndarray:
        return self.spec.cell_cycle_hours * np.clip(self.rng.normal(1, _CYCLE_SPREAD, n), 0.5, 1.5)

    def _infection_times(self, after: np.ndarray) -> np.ndarray:
        waiting = self.rng.exponential(self.spec.infection_mean_hours, len(after))
        times = np.maximum(after, self.spec.infection_onset_hpi) + waiting
        return times if self.infected_well else np.full(len(after), np.inf)

    def _new_track_ids(self, n: int) -> np.ndarray:
        first, self.n_tracks = self.n_tracks, self.n_tracks + n
        return np.arange(first, first + n, dtype=np.int64)

    def _keep_inside(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.clip(y, 0, self.spec.shape[1] - 1), np.clip(x, 0, self.spec.shape[2] - 1)


def _pushed_apart(cells: _Cells, hpi: float) -> tuple[np.ndarray, np.ndarray]:
    """Move overlapping cells away from each other by a third of their overlap."""
    radius = cells.radius(hpi)
    dy, dx = cells.y[:, None] - cells.y, cells.x[:, None] - cells.x
    distance = np.hypot(dy, dx) + 1e-6
    overlap = np.clip(1.05 * (radius[:, None] + radius) - distance, 0, None) / distance / 3
    np.fill_diagonal(overlap, 0)
    return cells.y + (overlap * dy).sum(1), cells.x + (overlap * dx).sum(1)


def simulate_tracks(spec: ExperimentSpec, fov_name: str, *, seed: int = 0) -> pd.DataFrame:
    """Simulate the cells of one FOV.

    Parameters
    ----------
    spec : ExperimentSpec
        The experiment.
    fov_name : str
        One of ``spec.fov_conditions``.
    seed : int, default 0
        The table is a pure function of (seed, experiment name, FOV name, spec).

    Returns
    -------
    DataFrame
        One row per observation, sorted by track and time: the columns of a tracking CSV
        (:data:`TRACK_COLUMNS`, positions in pixels, -1 = none), and the truth: ``experiment, fov_name, condition,
        hours_post_infection, lineage_id`` (track id of the root), ``generation, infected`` (from the infection time
        on), ``infection_time_hpi`` (infinite if never), ``infection_progress`` (0 healthy to 1 infected texture),
        ``radius`` (pixels), ``heading`` (radians), ``rounding`` (0 to 1, around a division), ``age`` (share of the cell
        cycle, 0 at birth to 1 at the division).

    Raises
    ------
    KeyError
        If the experiment has no such FOV.
    """
    condition = spec.fov_conditions[fov_name]
    population = _Population(spec, condition in spec.infected_conditions, spec.generators(seed, fov_name)[0])
    frames, n_observations = [], 0
    for frame in range(spec.n_frames):
        if frame:
            population.advance(frame - 1)
        frames.append(_observe(population.cells, spec, frame, first_id=n_observations))
        population.cells.previous_id = frames[-1]["id"].to_numpy()
        n_observations += len(population.cells)
    table = pd.concat(frames, ignore_index=True).sort_values(["track_id", "t"], kind="stable", ignore_index=True)
    table.insert(0, "experiment", spec.name)
    table.insert(1, "fov_name", fov_name)
    table.insert(2, "condition", condition)
    return table


def _observe(cells: _Cells, spec: ExperimentSpec, frame: int, first_id: int) -> pd.DataFrame:
    hpi = spec.hpi(frame)
    ramp = np.clip((hpi - cells.infection_hpi) / spec.infection_switch_hours + 0.5, 0, 1)
    return pd.DataFrame(
        {
            "track_id": cells.track_id,
            "t": np.full(len(cells), frame, np.int64),
            "z": cells.z.astype(np.float32),
            "y": cells.y.astype(np.float32),
            "x": cells.x.astype(np.float32),
            "id": np.arange(first_id, first_id + len(cells), dtype=np.int64),
            "parent_track_id": cells.parent_track_id,
            "parent_id": cells.previous_id,
            "hours_post_infection": hpi,
            "lineage_id": cells.lineage_id,
            "generation": cells.generation,
            "infected": hpi >= cells.infection_hpi,
            "infection_time_hpi": cells.infection_hpi,
            "infection_progress": ramp * ramp * (3 - 2 * ramp),
            "radius": cells.radius(hpi),
            "heading": cells.heading,
            "rounding": cells.rounding(hpi),
            "age": cells.age(hpi),
        }
    )
