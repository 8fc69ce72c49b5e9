"""ND2 of Nikon, with nd2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from viscy_data.images.files import ImageFile, ImagePosition, measured, shape_of_axes
from viscy_data.optional import require

__all__ = ["NikonImages"]


class NikonImages(ImageFile):
    """An ND2 file; each stage position is a position. One frame of the file holds all channels."""

    def __init__(self, path: Path) -> None:
        self._file = require("nd2", extra="images").ND2File(path)
        sizes = dict(self._file.sizes)
        n_positions = sizes.pop("P", 1)
        self._shape = shape_of_axes(sizes, str(path))
        self._frames = {
            (place.get("P", 0), place.get("T", 0), place.get("Z", 0)): number
            for number, place in enumerate(self._file.loop_indices)
        }
        n_taken = self._file.attributes.sequenceCount  # fewer when the recording was stopped
        absent: dict[int, set[tuple[int, int, int]]] = {}
        for (p, t, z), number in self._frames.items():
            if number >= n_taken:
                absent.setdefault(p, set()).update((t, c, z) for c in range(self._shape[1]))
        loops = {loop.type: loop.parameters for loop in self._file.experiment}
        names = [point.name or "" for point in loops["XYPosLoop"].points] if "XYPosLoop" in loops else []
        channels = self._file.metadata.channels or []
        width, height, depth = _voxel(channels[0].volume) if channels else (None, None, None)
        if "ZStackLoop" in loops:
            depth = measured(loops["ZStackLoop"].stepUm) or depth
        self.positions = tuple(
            ImagePosition(
                name=names[p] if p < len(names) else "",
                shape=self._shape,
                dtype=np.dtype(self._file.dtype),
                channel_names=tuple(channel.channel.name for channel in channels),
                pixel_size_um=(height, width) if height and width else None,
                z_step_um=depth,
                interval_seconds=_interval(loops),
                missing=frozenset(absent.get(p, ())),
            )
            for p in range(n_positions)
        )

    def read(self, position: int, t: int, c: int, z: int) -> np.ndarray:
        """Read one plane, (Y, X)."""
        frame = self._file.read_frame(self._frames[position, t, z])
        if frame.ndim == 3 and frame.shape[:2] == self._shape[3:]:  # components of one channel
            frame = np.moveaxis(frame, -1, 0)
        return np.ascontiguousarray(frame.reshape(self._shape[1], *self._shape[3:])[c])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _voxel(volume: Any) -> list[float | None]:
    """Return the micrometres along X, Y, Z, where they are calibrated."""
    steps = zip(volume.axesCalibration, volume.axesCalibrated, strict=True)
    return [measured(step) if is_known else None for step, is_known in steps]


def _interval(loops: dict[str, Any]) -> float | None:
    """Return what the clock measured, or else what was asked for; loops of unequal periods have none."""
    if "TimeLoop" in loops:
        periods = [loops["TimeLoop"]]
    else:
        periods = loops["NETimeLoop"].periods if "NETimeLoop" in loops else []
    taken = [getattr(period.periodDiff, "avg", None) for period in periods]
    seconds = {
        measured(own, 1e-3) or measured(period.periodMs, 1e-3) for own, period in zip(taken, periods, strict=True)
    }
    return seconds.pop() if len(seconds) == 1 else None
