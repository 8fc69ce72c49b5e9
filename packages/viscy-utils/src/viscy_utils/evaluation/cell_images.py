"""Images of embedded cells, from the stores that the embeddings say they were predicted from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from rich.progress import Progress

from viscy_data.patches import PatchReader, clamp_centers, patch_start
from viscy_data.stores import FovInfo, FovKey, read_fov
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.image_tiles import contrast_limits
from viscy_utils.evaluation.origins import stored_origin

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CellImageReader", "CellImages", "Contrast", "read_cell_images"]

Contrast = Mapping[tuple[str, str | None], Sequence[tuple[float, float]]]
"""Pixel values that are shown as 0 and 255, per channel, by store and experiment."""

Advance: TypeAlias = Callable[[int], object]

_BLOCK = 256  # cells that are read at once


@dataclass(frozen=True)
class CellImages:
    """Images of some cells, ready to be shown.

    Attributes
    ----------
    rows : ndarray of int64, shape (M,)
        Rows of the embedding that have an image, ascending.
    pixels : ndarray of uint8, shape (M, C, Y, X)
        Middle slice of what the encoder saw, of every channel; 0 and 255 are percentiles of the shown cells of one
        experiment, so that their brightness can be compared.
    channels : tuple of str
        Name per position; several where experiments differ.
    notes : tuple of str
        Why cells have none.
    contrast : mapping
        What 0 and 255 are, as :meth:`CellImageReader.read` takes it to show other cells in the same brightness.
    """

    rows: np.ndarray
    pixels: np.ndarray
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    contrast: Contrast = field(default_factory=dict)

    @classmethod
    def none(cls, *notes: str) -> CellImages:
        """Return no images, with the reason."""
        return cls(np.zeros(0, np.int64), np.zeros((0, 0, 0, 0), np.uint8), notes=notes)


@dataclass(frozen=True)
class _Group:
    """Cells whose images are found in the same way: of one experiment and one store."""

    store: str
    experiment: str | None
    channels: tuple[str | None, ...]
    z: int
    size: tuple[int, int]
    rows: np.ndarray


class CellImageReader:
    """Read images of cells part by part; FOVs stay open from one part to the next.

    Parameters
    ----------
    obs : DataFrame
        Of all cells: their FOVs, frames ``t`` and places ``y`` and ``x``.
    uns : mapping
        Of their store, whose origin names the stores of images (``data.sources.predict[].images``).
    """

    def __init__(self, obs: pd.DataFrame, uns: Mapping[str, Any]) -> None:
        self._obs = obs
        self._sources = [source for source in stored_origin(uns).get("sources", []) if source.get("images")]
        self._fovs: dict[FovKey, FovInfo] = {}
        if missing := [name for name in ("fov_name", "t", "y", "x") if name not in obs]:
            self._lack = f"the embeddings lack the columns {' and '.join(missing)}"
        elif not self._sources:
            self._lack = "the embeddings do not say which stores they were predicted from"
        else:
            self._lack = ""
            names = obs["fov_name"].astype(str).unique()
            keys = [
                FovKey(store, name) for store in {source["store"]: None for source in self._sources} for name in names
            ]
            self._numbers = {key: number for number, key in enumerate(keys)}
            self._reader = PatchReader(keys)

    def read(self, rows: np.ndarray, contrast: Contrast | None = None, advance: Advance | None = None) -> CellImages:
        """Read the images of some cells.

        Parameters
        ----------
        rows : ndarray of int64, shape (K,)
            Their rows, in any order.
        contrast : mapping, optional
            That of images read before; by default, and for experiments that it lacks, percentiles of these cells.
        advance : callable, optional
            Told how many cells more have been read.

        Returns
        -------
        CellImages
            Without the cells whose store or FOV is not at hand, as the notes say.
        """
        if self._lack:
            return CellImages.none(f"no images of cells: {self._lack}")
        limits = dict(contrast or {})
        groups = _groups(self._sources, self._obs, np.sort(rows))
        read = [self._read_group(group, limits, advance or (lambda n: None)) for group in groups]
        notes = tuple(dict.fromkeys(note for _, _, notes in read for note in notes))
        full = [(group_rows, pixels) for group_rows, pixels, _ in read if len(group_rows)]
        if len({pixels.shape[1:] for _, pixels in full}) != 1:
            return CellImages.none(*notes, "no images of cells: none that can be read, or of different sizes")
        found, first = np.unique(np.concatenate([group_rows for group_rows, _ in full]), return_index=True)
        pixels = np.concatenate([pixels for _, pixels in full])
        return CellImages(found, pixels[first], _channel_names(self._sources), notes, limits)

    def _read_group(
        self, group: _Group, limits: dict[tuple[str, str | None], Sequence[tuple[float, float]]], advance: Advance
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return the rows that could be read, their pixels and what could not; note the limits of a new experiment."""
        empty = np.zeros((0, len(group.channels), *group.size), np.uint8)
        try:
            pixels = self._pixels(group, advance)
        except ValueError as err:  # nothing there any more, or not what was predicted from
            return group.rows[:0], empty, [f"no images of cells of {group.store}: {' '.join(str(err).split())}"]
        shown_as = (group.store, group.experiment)
        if shown_as not in limits:
            limits[shown_as] = [contrast_limits(pixels[:, channel]) for channel in range(pixels.shape[1])]
        return group.rows, _as_bytes(pixels, limits[shown_as]), []

    def _pixels(self, group: _Group, advance: Advance) -> np.ndarray:
        """Read the middle slice of the patch of each cell; returns float32 (M, C, Y, X)."""
        cells = self._obs.iloc[group.rows]
        names, own = np.unique(cells["fov_name"].to_numpy().astype(str), return_inverse=True)
        fovs = [self._fov(FovKey(group.store, name)) for name in names]
        numbers = np.array([self._numbers[fov.key] for fov in fovs])[own]
        extents = np.array([fov.shape[3:] for fov in fovs])[own].T
        starts = []
        for name, size, extent in zip("yx", group.size, extents, strict=True):
            starts.append(patch_start(clamp_centers(cells[name].to_numpy(), size, extent), size))
        channels = np.array(
            [[-1 if name is None else fov.channel_index(name) for name in group.channels] for fov in fovs]
        )[own]
        t = cells["t"].to_numpy()
        pixels = np.empty((len(cells), len(group.channels), *group.size), np.float32)
        order = np.lexsort((t, own))  # cells of a frame share the chunks that are decoded
        for part in np.array_split(order, -(-len(order) // _BLOCK)):
            box = (
                numbers[part],
                t[part],
                channels[part],
                np.full(len(part), group.z),
                *(each[part] for each in starts),
            )
            pixels[part] = self._reader.read(*box, (1, *group.size))[:, :, 0]
            advance(len(part))
        return pixels

    def _fov(self, key: FovKey) -> FovInfo:
        if key not in self._fovs:
            self._fovs[key] = read_fov(key)
        return self._fovs[key]


def read_cell_images(embedded: Embedded, rows: np.ndarray) -> CellImages:
    """Read the images of cells, and show how far it is.

    Parameters
    ----------
    embedded : Embedded
    rows : ndarray of int64, shape (K,)
        Rows of the embedding whose images are wanted, in any order.

    Returns
    -------
    CellImages
        As from :meth:`CellImageReader.read`.
    """
    with Progress(transient=True) as bar:
        task = bar.add_task("Images of cells", total=len(rows))
        return CellImageReader(embedded.obs, embedded.origin).read(rows, advance=partial(bar.advance, task))


def _groups(sources: Sequence[Mapping[str, Any]], obs: pd.DataFrame, chosen: np.ndarray) -> Iterator[_Group]:
    for source in sources:
        for images in source["images"]:
            rows = chosen
            if images["experiment"] is not None:
                rows = chosen[obs["experiment"].iloc[chosen].to_numpy() == images["experiment"]]
            z = sum(images["z_range"]) // 2
            if len(rows):
                own = (tuple(images["channels"]), z, tuple(images["yx_size"]))
                yield _Group(source["store"], images["experiment"], *own, rows)


def _as_bytes(pixels: np.ndarray, limits: Sequence[tuple[float, float]]) -> np.ndarray:
    shown = np.empty(pixels.shape, np.uint8)
    for channel, (low, high) in enumerate(limits):
        scaled = np.nan_to_num((pixels[:, channel] - low) / (high - low), nan=0.0)
        shown[:, channel] = np.clip(np.rint(255 * scaled), 0, 255)
    return shown


def _channel_names(sources: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    lists = [images["channels"] for source in sources for images in source["images"]]
    return tuple(
        " / ".join(dict.fromkeys(str(name or "absent") for name in names)) for names in zip(*lists, strict=False)
    )
