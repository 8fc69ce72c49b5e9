"""A plate that grows while a model predicts its stacks: blended, resumable, shared by ranks.

Windows of one stack overlap; what is written is the mean of all predictions of a slice. A stack is written when all of
its windows have come. One that is divided between two ranks, or two runs, is kept in parts and put together in the end.

>>> blend = StackBlend((1, 3, 1, 1))
>>> blend.add(np.full((1, 2, 1, 1), 2.0), first=0)
>>> blend.add(np.full((1, 2, 1, 1), 4.0), first=1)
>>> blend.mean()[0, :, 0, 0].tolist()
[2.0, 3.0, 4.0]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from viscy_data.files import replacing
from viscy_data.stores import FovInfo, GrowingPlate, PlateWriter, update_attributes_of

__all__ = ["PredictedPlate", "StackBlend"]


class StackBlend:
    """The mean of overlapping windows.

    Parameters
    ----------
    shape : tuple of int
        (C, Z, Y, X) of the stack.
    """

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.sum, self.count = np.zeros(shape, np.float32), np.zeros(shape[:2], np.int64)
        self.n_windows = 0

    def add(self, window: np.ndarray, first: int, channels: slice = slice(None)) -> None:
        """Add (C, Z, Y, X) pixels that begin at a slice."""
        place = channels, slice(first, first + window.shape[1])
        self.sum[place] += window
        self.count[place] += 1

    def mean(self) -> np.ndarray:
        """Return the stack; float32, zero where nothing was added."""
        return self.sum / np.maximum(self.count, 1)[:, :, None, None]


class PredictedPlate:
    """A plate in the making, in a folder beside its place until it is complete.

    Parameters
    ----------
    path : Path
        Where the plate will be; until then ``<path>.parts`` holds it.
    fovs : sequence of FovInfo
        What is predicted. The plate gets their names, frames, slices, sizes and scales; images that are in no plate
        are numbered, ``0/0/0``, ``0/0/1``, ..., with their path as the attribute ``source`` of the FOV.
    channel_names : sequence of str
        Of the plate.
    z_window_size : int
        Slices of a window: a stack of Z slices has ``Z - z_window_size + 1``.
    rank : int, default 0
        This process; each one predicts a contiguous part of all windows.
    """

    def __init__(
        self, path: Path, fovs: Sequence[FovInfo], channel_names: Sequence[str], z_window_size: int, rank: int = 0
    ) -> None:
        self._growing = GrowingPlate(path)
        self.folder = self._growing.folder
        self.fovs, self.channel_names, self._rank = list(fovs), list(channel_names), rank
        in_plate = all(fov.name.count("/") == 2 for fov in fovs)
        self._names = [fov.name if in_plate else f"0/0/{number}" for number, fov in enumerate(fovs)]
        self._n_windows = [fov.shape[2] - z_window_size + 1 for fov in fovs]
        self._stack: tuple[int, int, int] | None = None
        self._blend = StackBlend((0, 0, 0, 0))

    # One process of all

    def create(self, manifest: Mapping[str, Any], overwrite: bool = False) -> None:
        """Make the plate of zeros, or keep what an interrupted run of the same kind has left.

        Raises
        ------
        InputError
            If it belongs to another model, other data or another number of ranks.
        """
        fix = "repeat the interrupted prediction as it was, or start over with overwrite: true"
        self._growing.begin(manifest, self._make, overwrite, fix=fix)

    def _make(self, path: Path) -> None:
        with PlateWriter(path, self.channel_names) as plate:
            for name, fov in zip(self._names, self.fovs, strict=True):
                shape = (fov.shape[0], len(self.channel_names), *fov.shape[2:])
                plate.create(name, shape, scale=fov.scale)
        renamed = {name: fov.path for name, fov in zip(self._names, self.fovs, strict=True) if name != fov.name}
        update_attributes_of(path, "source", renamed)

    def complete(self, overwrite: bool = False) -> bool:
        """Give the plate its name if all ranks have predicted all of their windows; tell whether they have."""
        if self._growing.n_done_by_all() < sum(
            fov.shape[0] * n for fov, n in zip(self.fovs, self._n_windows, strict=True)
        ):
            return False
        parts: dict[tuple[int, int], list[Path]] = {}
        for path in sorted(self.folder.glob("stack-*.npz")):
            fov, t, _ = map(int, path.stem.split("-")[1:])
            parts.setdefault((fov, t), []).append(path)
        for (fov, t), paths in parts.items():
            blend = StackBlend(self._stack_shape(fov))
            for path in paths:
                with np.load(path) as stored:
                    blend.sum += stored["sum"]
                    blend.count += stored["count"]
            self._array(fov)[t] = blend.mean()
        self._growing.finish(overwrite)
        return True

    # Every process

    def n_done(self) -> int:
        """Count this rank's windows that are written, its first ones."""
        return self._growing.n_done(self._rank)

    def add(self, fov: int, t: int, z: int, windows: Sequence[tuple[np.ndarray, int, slice]]) -> None:
        """Add what was made of a window; windows come in order.

        Parameters
        ----------
        fov, t, z : int
            Number of the FOV, frame and first slice of the window.
        windows : sequence of (ndarray, int, slice)
            Pixels (C, Z, Y, X), their first slice, and their channels in the plate.
        """
        if self._stack is None or self._stack[:2] != (fov, t):
            self.flush()
            self._stack, self._blend = (fov, t, z), StackBlend(self._stack_shape(fov))
        for pixels, first, channels in windows:
            self._blend.add(pixels, first, channels)
        self._blend.n_windows += 1
        if self._blend.n_windows == self._n_windows[fov]:
            self.flush()

    def flush(self) -> None:
        """Write the stack at hand, or what there is of it, and count it as done."""
        if self._stack is None:
            return
        (fov, t, z), blend = self._stack, self._blend
        if blend.n_windows == self._n_windows[fov]:
            self._array(fov)[t] = blend.mean()
        else:
            # By its first window, so that a run that died here writes the same file again.
            with replacing(self.folder / f"stack-{fov}-{t}-{z}.npz", overwrite=True) as temporary:
                np.savez(temporary, sum=blend.sum, count=blend.count)
        self._growing.set_done(self.n_done() + blend.n_windows, self._rank)
        self._stack = None

    def _stack_shape(self, fov: int) -> tuple[int, int, int, int]:
        return (len(self.channel_names), *self.fovs[fov].shape[2:])

    def _array(self, fov: int) -> Any:
        return self._growing.array(self._names[fov])
