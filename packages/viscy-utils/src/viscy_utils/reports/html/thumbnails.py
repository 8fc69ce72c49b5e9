"""Small images of cells as sheets of JPEG, within a number of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viscy_data.optional import require
from viscy_utils.reports.html.packing import pack

__all__ = ["ImageSheets", "make_sheets", "thumbnail", "thumbnail_size"]

_LARGEST = 48  # pixels of an image on the page, per channel
_COLUMNS = 16
_QUALITY = 80


@dataclass(frozen=True)
class ImageSheets:
    """Images of cells, ready for the page.

    Attributes
    ----------
    cells : ndarray of int64, shape (K,)
        Which cells have an image.
    sheets : tuple of str
        Data URIs; each holds 16 x 16 images, the channels of a cell beside each other.
    size : tuple of int
        Height and width of one channel in pixels.
    channels : tuple of str
    """

    cells: np.ndarray
    sheets: tuple[str, ...]
    size: tuple[int, int]
    channels: tuple[str, ...]

    def record(self, missing: str) -> dict[str, Any]:
        """Return plain values for the script of the page; ``missing`` is said of cells without an image."""
        return {
            "cells": pack(self.cells),
            "sheets": list(self.sheets),
            "height": self.size[0],
            "width": self.size[1],
            "columns": _COLUMNS,
            "channels": list(self.channels),
            "missing": missing,
        }


def make_sheets(pixels: np.ndarray, cells: np.ndarray, channels: tuple[str, ...], max_bytes: int) -> ImageSheets:
    """Make sheets of images, as many as fit.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (M, C, Y, X)
        Larger ones than 48 pixels are made smaller.
    cells : ndarray of int64, shape (M,)
        Their cells; the first come first.
    channels : tuple of str
        C names.
    max_bytes : int
        Of all sheets together, as they stand in the page.
    """
    if not len(cells):
        return ImageSheets(cells, (), (1, 1), ())
    image = require("PIL.Image", extra="report", package="viscy-utils")
    height, width = thumbnail_size(pixels.shape[2:], _LARGEST)
    sheets, n_bytes, per_sheet = [], 0, _COLUMNS**2
    for start in range(0, len(cells), per_sheet):
        part = pixels[start : start + per_sheet]
        n_rows = -(-len(part) // _COLUMNS)
        sheet = np.zeros((n_rows * height, _COLUMNS * width * part.shape[1]), np.uint8)
        for number, cell in enumerate(part):
            row, column = divmod(number, _COLUMNS)
            tile = thumbnail(cell, (height, width))
            top, left = row * height, column * tile.shape[1]
            sheet[top : top + height, left : left + tile.shape[1]] = tile
        text = _data_uri(image.fromarray(sheet))
        n_bytes += len(text)
        if n_bytes > max_bytes:
            break
        sheets.append(text)
    return ImageSheets(cells[: len(sheets) * per_sheet], tuple(sheets), (height, width), channels)


def thumbnail_size(size: Sequence[int], largest: int) -> tuple[int, int]:
    """Return height and width of an image whose longer side may have so many pixels; none is made larger.

    >>> thumbnail_size((200, 100), 48)
    (48, 24)
    """
    scale = min(1.0, largest / max(size))
    height, width = (max(1, round(n * scale)) for n in size)
    return height, width


def thumbnail(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Lay the channels of a cell beside each other, each made smaller by averaging.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (C, Y, X)
    size : tuple of int
        Height and width of a channel, as from :func:`thumbnail_size`.

    Returns
    -------
    ndarray of uint8, shape (height, C * width)
    """
    if pixels.shape[1:] == size:
        return np.concatenate(list(pixels), axis=1)
    image = require("PIL.Image", extra="report", package="viscy-utils")
    channels = [image.fromarray(channel).resize(size[::-1], image.Resampling.BOX) for channel in pixels]
    return np.concatenate([np.asarray(channel) for channel in channels], axis=1)


def _data_uri(picture: Any) -> str:
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
