"""Cells that are not in their image: how many, for example which, and what that looks like.

A table in micrometres, with x and y swapped, or with frames that count from 1 is read without an error; what gives it
away is that its cells are not where the image is.

>>> from viscy_data.stores import FovInfo, FovKey
>>> fov = FovInfo(FovKey("p.zarr", "A/1/0"), (5, 1, 1, 40, 100), "uint8", ("a",))
>>> table = {"track_id": [0, 1], "t": [0, 4], "y": [90.0, 20.0], "x": [30.0, 9.0]}
>>> for sentence in describe_outside([count_outside(table, fov)]):
...     print(sentence)
1 of 2 cells (50 %) lie outside their image and are left out, for example track 0 in frame 0 of A/1/0 at y = 90, \
x = 30, where the image is 40 x 100 pixels
x and y seem swapped (A/1/0): exchanged, the cells lie inside
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viscy_data.stores import FovInfo

__all__ = ["OutsideCount", "count_outside", "describe_outside"]

_EXPLAINED = 0.9  # share of the cells outside that a guess has to put inside
_FEWEST_TRACKS = 10  # so many tracks do not all lie in one half of the image by chance
_SHOWN = 5


@dataclass(frozen=True)
class OutsideCount:
    """The cells of one FOV that are not in its image.

    Parameters
    ----------
    fov : str
        Name of the FOV.
    n : int
        Rows of the table.
    n_outside, n_negative, n_beyond : int
        Rows outside the image, those of them with a negative coordinate; rows inside it after the last frame.
    swapped, micrometres, cornered : bool
        Whether exchanging y and x, or dividing by the size of a pixel, puts inside what is outside; whether all cells
        lie in the corner where they would lie in micrometres.
    frames : tuple of int
        First and last frame of the table, and number of frames of the image.
    step : int
        What divides all distances of frames: 1 where cells are in neighbouring frames.
    example : str
        A row outside.
    """

    fov: str
    n: int
    n_outside: int = 0
    n_negative: int = 0
    n_beyond: int = 0
    swapped: bool = False
    micrometres: bool = False
    cornered: bool = False
    frames: tuple[int, int, int] = (0, 0, 0)
    step: int = 1
    example: str = ""

    @property
    def shifted(self) -> bool:
        """Whether counting frames from the table's first puts all of them into the image."""
        first, last, n_frames = self.frames
        return self.n_beyond > 0 and first > 0 and last - first < n_frames

    @property
    def timed(self) -> bool:
        """Whether dividing by the step puts all frames into the image."""
        first, last, n_frames = self.frames
        return self.n_beyond > 0 and self.step > 1 and (last - first) // self.step < n_frames and not self.shifted


def count_outside(table: Mapping[str, Any], fov: FovInfo) -> OutsideCount:
    """Count the cells that are not in their image.

    Parameters
    ----------
    table : mapping of str to array
        ``t``, ``y`` and ``x``, in pixels, and ``track_id`` where there are tracks.
    fov : FovInfo
        The image; ``scale`` decides what micrometres would look like.
    """
    t, y, x = (np.asarray(table[name]) for name in ("t", "y", "x"))
    if not len(t):
        return OutsideCount(fov.name, 0)
    track = np.asarray(table["track_id"]) if "track_id" in table else np.arange(len(t))
    height, width = fov.shape[3:]
    scale_y, scale_x = fov.scale[3:]
    inside = _inside(y, x, height, width)
    outside = ~inside
    scaled = (scale_y, scale_x) != (1.0, 1.0)

    def explains(guess: np.ndarray) -> bool:
        return bool(outside.any() and guess[outside].mean() >= _EXPLAINED and guess.sum() > inside.sum())

    corner = scaled and not outside.any() and scale_y * scale_x <= 0.5 and len(np.unique(track)) >= _FEWEST_TRACKS
    return OutsideCount(
        fov=fov.name,
        n=len(t),
        n_outside=int(outside.sum()),
        n_negative=int(((y < 0) | (x < 0)).sum()),
        n_beyond=int((inside & (t >= fov.shape[0])).sum()),
        swapped=explains(_inside(x, y, height, width)),
        micrometres=scaled and explains(_inside(y / scale_y, x / scale_x, height, width)),
        cornered=bool(corner and (y < height * scale_y).all() and (x < width * scale_x).all()),
        frames=(int(t.min()), int(t.max()), fov.shape[0]),
        step=int(np.gcd.reduce(np.diff(np.unique(t)).astype(np.int64))) or 1,
        example=_example(int(outside.argmax()), track, t, y, x, fov) if outside.any() else "",
    )


def describe_outside(counts: Sequence[OutsideCount]) -> list[str]:
    """Put counts into sentences; none when every cell is in its image.

    Parameters
    ----------
    counts : sequence of OutsideCount
        One per FOV.

    Returns
    -------
    list of str
        The share of the cells outside with an example, and every guess at the cause with the FOVs it fits.
    """
    sentences = []
    total, n_outside = sum(count.n for count in counts), sum(count.n_outside for count in counts)
    if n_outside:
        first = next(count for count in counts if count.n_outside)
        sentences.append(
            f"{n_outside} of {total} cells ({_percent(n_outside, total)}) lie outside their image and are left out, "
            f"for example {first.example}"
        )
    if n_negative := sum(count.n_negative for count in counts):
        sentences.append(f"{n_negative} of them have negative coordinates")
    guesses: list[tuple[str, str, Callable[[OutsideCount], bool]]] = [
        ("x and y seem swapped", "exchanged, the cells lie inside", lambda count: count.swapped),
        ("micrometres?", "divided by the size of a pixel, the cells lie inside", lambda count: count.micrometres),
        ("micrometres?", "all cells lie in the corner where they would lie then", lambda count: count.cornered),
    ]
    for guess, reason, holds in guesses:
        if fitting := [count.fov for count in counts if holds(count)]:
            sentences.append(f"{guess} ({_listed(fitting)}): {reason}")
    starts = sorted({count.frames[0] for count in counts if count.shifted})
    for start in starts:
        own = [count.fov for count in counts if count.shifted and count.frames[0] == start]
        begin = "count from 1" if start == 1 else f"begin at {start}"
        sentences.append(f"frames seem to {begin} ({_listed(own)}): subtract {start} to count from 0")
    for step in sorted({count.step for count in counts if count.timed}):
        own = [count.fov for count in counts if count.timed and count.step == step]
        sentences.append(f"t seems to be a time and no frame ({_listed(own)}): divide by {step} to count frames")
    return sentences


def _inside(y: np.ndarray, x: np.ndarray, height: int, width: int) -> np.ndarray:
    return (y >= 0) & (y < height) & (x >= 0) & (x < width)


def _example(row: int, track: np.ndarray, t: np.ndarray, y: np.ndarray, x: np.ndarray, fov: FovInfo) -> str:
    return (
        f"track {track[row]} in frame {t[row]} of {fov.name} at y = {y[row]:g}, x = {x[row]:g}, "
        f"where the image is {fov.shape[3]} x {fov.shape[4]} pixels"
    )


def _percent(part: int, total: int) -> str:
    share = 100 * part / total
    return f"{share:.0f} %" if share >= 1 else f"{share:.1g} %"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more FOVs" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
