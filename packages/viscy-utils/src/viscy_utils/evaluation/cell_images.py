"""Images of embedded cells, from the stores that the embeddings say they were predicted from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import Progress

from viscy_data.patches import PatchReader, clamp_centers, patch_start
from viscy_data.stores import FovInfo, FovKey, read_fov
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.image_tiles import contrast_limits
from viscy_utils.evaluation.origins import origin_of

__all__ = ["CellImages", "Contrast", "read_cell_images"]

Contrast = Mapping[tuple[str, str | None], Sequence[tuple[float, float]]]
"""Pixel values that are shown as 0 and 255, per channel, by store and experiment."""

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
        What 0 and 255 are, as :func:`read_cell_images` takes it to show other cells in the same brightness.
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


def read_cell_images(
    embedded: Embedded,
    rows: np.ndarray,
    *,
    contrast: Contrast | None = None,
    advance: Callable[[int], object] | None = None,
) -> CellImages:
    """Read the images of cells.

    Parameters
    ----------
    embedded : Embedded
        Its origin names the stores (``data.sources.predict[].images``), its ``obs`` the places ``y`` and ``x``.
    rows : ndarray of int64, shape (K,)
        Rows of the embedding whose images are wanted, in any order.
    contrast : mapping, optional
        That of images read before; by default, and for experiments that it lacks, percentiles of these cells.
    advance : callable, optional
        Told how many cells more have been read; without it a bar is shown.

    Returns
    -------
    CellImages
        Without the cells whose store or FOV is not at hand, as the notes say.
    """
    if not {"y", "x"} <= set(embedded.obs):
        return CellImages.none("no images of cells: the embeddings lack the places y and x")
    sources = [source for source in origin_of(embedded).get("sources", []) if source.get("images")]
    if not sources:
        return CellImages.none("no images of cells: the embeddings do not say which stores they were predicted from")
    groups = list(_groups(sources, embedded.obs, np.sort(rows)))
    limits: dict[tuple[str, str | None], Sequence[tuple[float, float]]] = dict(contrast or {})
    with Progress(transient=True) if advance is None else nullcontext() as bar:
        if bar is not None:
            task = bar.add_task("Images of cells", total=sum(len(group.rows) for group in groups))
            advance = partial(bar.advance, task)
        read = [_read_group(group, embedded.obs, limits, advance) for group in groups]
    notes = tuple(dict.fromkeys(note for _, _, notes in read for note in notes))
    full = [(group_rows, pixels) for group_rows, pixels, _ in read if len(group_rows)]
    if len({pixels.shape[1:] for _, pixels in full}) != 1:
        return CellImages.none(*notes, "no images of cells: none that can be read, or of different sizes")
    found, first = np.unique(np.concatenate([group_rows for group_rows, _ in full]), return_index=True)
    pixels = np.concatenate([pixels for _, pixels in full])
    return CellImages(found, pixels[first], _channel_names(sources), notes, limits)


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


def _read_group(
    group: _Group,
    obs: pd.DataFrame,
    limits: dict[tuple[str, str | None], Sequence[tuple[float, float]]],
    advance: Callable[[int], object],
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the rows that could be read, their pixels and what could not be; note the limits of a new experiment."""
    empty = np.zeros((0, len(group.channels), *group.size), np.uint8)
    names = obs["fov_name"].iloc[group.rows].to_numpy().astype(str)
    try:
        fovs = [read_fov(FovKey(group.store, name)) for name in np.unique(names)]
        pixels = _pixels(fovs, obs.iloc[group.rows], group, advance)
    except ValueError as err:  # nothing there any more, or not what was predicted from
        return group.rows[:0], empty, [f"no images of cells of {group.store}: {' '.join(str(err).split())}"]
    shown_as = (group.store, group.experiment)
    if shown_as not in limits:
        limits[shown_as] = [contrast_limits(pixels[:, channel]) for channel in range(pixels.shape[1])]
    return group.rows, _as_bytes(pixels, limits[shown_as]), []


def _pixels(
    fovs: Sequence[FovInfo], cells: pd.DataFrame, group: _Group, advance: Callable[[int], object]
) -> np.ndarray:
    """Read the middle slice of the patch of each cell; returns float32 (M, C, Y, X)."""
    numbers = {fov.name: number for number, fov in enumerate(fovs)}
    fov = cells["fov_name"].astype(str).map(numbers).to_numpy()
    extents = np.array([each.shape[3:] for each in fovs])[fov].T
    starts = []
    for name, size, extent in zip("yx", group.size, extents, strict=True):
        starts.append(patch_start(clamp_centers(cells[name].to_numpy(), size, extent), size))
    channels = np.array(
        [[-1 if name is None else each.channel_index(name) for name in group.channels] for each in fovs]
    )
    t, reader = cells["t"].to_numpy(), PatchReader(fovs)
    pixels = np.empty((len(cells), len(group.channels), *group.size), np.float32)
    order = np.lexsort((t, fov))  # cells of a frame share the chunks that are decoded
    for part in np.array_split(order, -(-len(order) // _BLOCK)):
        box = (fov[part], t[part], channels[fov[part]], np.full(len(part), group.z), *(start[part] for start in starts))
        pixels[part] = reader.read(*box, (1, *group.size))[:, :, 0]
        advance(len(part))
    return pixels


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
