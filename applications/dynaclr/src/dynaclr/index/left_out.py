"""What is in the input but not in an index, by experiment, so that it is still known of a part of the experiments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

__all__ = ["LeftOut", "LeftOutOf"]


@dataclass(frozen=True)
class LeftOutOf:
    """What is left out of one experiment.

    Parameters
    ----------
    fovs : tuple of str
        FOVs without a tracking table.
    n_outside, n_beyond : int
        Rows outside the image, and rows after the last frame.
    n_orphans : int
        Tracks that name a parent which is not in their table, and count as roots.
    remarks : tuple of str
        Share and example of the rows outside, and what they look like.
    """

    fovs: tuple[str, ...] = ()
    n_outside: int = 0
    n_beyond: int = 0
    n_orphans: int = 0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """What is left out of every experiment, by its name."""

    by_experiment: Mapping[str, LeftOutOf] = field(default_factory=dict)

    @property
    def fovs(self) -> tuple[tuple[str, str], ...]:
        """(Experiment, FOV) of FOVs without a tracking table."""
        return tuple((name, fov) for name, own in self.by_experiment.items() for fov in own.fovs)

    @property
    def n_outside(self) -> int:
        """Rows outside their image."""
        return sum(own.n_outside for own in self.by_experiment.values())

    @property
    def n_beyond(self) -> int:
        """Rows after the last frame."""
        return sum(own.n_beyond for own in self.by_experiment.values())

    @property
    def n_orphans(self) -> int:
        """Tracks whose parent is not in their table."""
        return sum(own.n_orphans for own in self.by_experiment.values())

    def subset(self, experiments: Iterable[str]) -> Self:
        """Return what is left out of some of the experiments."""
        return type(self)({name: self.by_experiment[name] for name in experiments if name in self.by_experiment})

    def to_json(self) -> dict[str, Any]:
        """Return plain values for :meth:`from_json`."""
        return {name: asdict(own) for name, own in self.by_experiment.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Mapping[str, Any]]) -> Self:
        """Return what :meth:`to_json` was made of."""
        return cls({name: LeftOutOf(**{**own, **_tuples(own)}) for name, own in content.items()})


def _tuples(own: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(own[name]) for name in ("fovs", "remarks")}
