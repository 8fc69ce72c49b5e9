"""A table of cells with coordinates and thumbnails, as explorers of embeddings read it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import Progress

from viscy_data.files import replacing
from viscy_data.optional import require
from viscy_utils.evaluation.cell_images import CellImageReader, CellImages, Contrast
from viscy_utils.reports.html.thumbnails import thumbnail, thumbnail_size

__all__ = [
    "COORDINATES",
    "IMAGE",
    "OWN_COLUMNS",
    "AtlasImages",
    "explorer_command",
    "find_images",
    "read_origin",
    "write_atlas",
]

_CELL = "cell"
COORDINATES = ("projection_x", "projection_y")
IMAGE = "image"
OWN_COLUMNS = (_CELL, *COORDINATES, IMAGE)
"""Columns that the columns of the embeddings may not be called like."""

# What `datasets` of Hugging Face writes for a column of images, and reads as one.
_IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_SCHEMA_NOTE = {"huggingface": json.dumps({"info": {"features": {IMAGE: {"_type": "Image"}}}})}

_ORIGIN = "dynaclr"  # key of the metadata of the file

_ROWS = 512  # of a row group: so many images are in memory at once
_SHOWN = 1024  # cells of an experiment that decide about its brightness


@dataclass(frozen=True)
class AtlasImages:
    """How the images of cells become thumbnails.

    Attributes
    ----------
    reader : CellImageReader
    side : int
        Pixels of the longer side of a channel, at most.
    contrast : mapping
        As of :class:`viscy_utils.evaluation.cell_images.CellImages`.
    channels : tuple of str
        From left to right.
    notes : tuple of str
        Why cells have none.
    """

    reader: CellImageReader
    side: int
    contrast: Contrast
    channels: tuple[str, ...]
    notes: tuple[str, ...]


def find_images(obs: pd.DataFrame, uns: Mapping[str, Any], rows: np.ndarray, side: int) -> AtlasImages:
    """Look at some cells of each experiment, to show all of its cells in one brightness.

    Parameters
    ----------
    obs, uns : DataFrame and mapping
        Of the store of embeddings.
    rows : ndarray of int64, shape (K,)
        Of which at most 1024 per experiment are read.
    side : int

    Returns
    -------
    AtlasImages
        Without channels where no image can be read.
    """
    groups = [rows]
    if "experiment" in obs:
        experiments = obs["experiment"].astype(str).to_numpy()[rows]
        groups = [rows[experiments == name] for name in np.unique(experiments)]
    some = [each[np.linspace(0, len(each) - 1, min(len(each), _SHOWN)).astype(np.int64)] for each in groups]
    reader = CellImageReader(obs, uns)
    found = reader.read(np.concatenate(some))
    return AtlasImages(reader, side, found.contrast, found.channels if len(found.rows) else (), found.notes)


def write_atlas(
    path: Path,
    obs: pd.DataFrame,
    rows: np.ndarray,
    points: np.ndarray,
    images: AtlasImages | None = None,
    overwrite: bool = False,
    origin: Mapping[str, str] | None = None,
) -> tuple[int, tuple[str, ...]]:
    """Write cells to a Parquet file, row group by row group, whole or not at all.

    Columns are ``cell`` (name of the row), ``projection_x`` and ``projection_y`` (float32), all of ``obs``, and, with
    images, ``image``: a struct of ``bytes`` (PNG, 8 bit, channels beside each other) and ``path``, null for cells whose
    image is not at hand.

    Parameters
    ----------
    path : Path
    obs : DataFrame
        Of the embeddings; its index has the names of the cells.
    rows : ndarray of int64, shape (K,)
        Cells in the order of the file.
    points : ndarray of float32, shape (K, 2)
    images : AtlasImages, optional
        Without it, and without an image that can be read, there is no column of images.
    overwrite : bool, default False
    origin : mapping of str to str, optional
        What the cells are from, for :func:`read_origin`.

    Returns
    -------
    int
        How many cells have an image.
    tuple of str
        Why others have none.

    Raises
    ------
    FileExistsError
    """
    table = _table(obs.iloc[rows], points)
    schema, n_images = table.schema, 0
    notes = dict.fromkeys(() if images is None else images.notes)
    shown = images is not None and bool(images.channels)
    if shown:
        schema = schema.append(pa.field(IMAGE, _IMAGE_TYPE))
    notes_of_file = (_SCHEMA_NOTE if shown else {}) | {_ORIGIN: json.dumps(dict(origin or {}))}
    schema = schema.with_metadata(notes_of_file)
    with (
        replacing(path, overwrite) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        Progress(transient=True) as bar,
    ):
        task = bar.add_task("Cells", total=len(rows))
        for start in range(0, len(rows), _ROWS):
            part = table.slice(start, _ROWS)
            if shown:
                own = rows[start : start + _ROWS]
                found = images.reader.read(own, images.contrast)
                column = _image_column(found, own, part[_CELL].to_pylist(), images.side)
                part = part.append_column(schema.field(IMAGE), column)
                n_images += len(found.rows)
                notes |= dict.fromkeys(found.notes)
            writer.write_table(part.cast(schema))
            bar.advance(task, len(part))
    return n_images, tuple(notes)


def read_origin(schema: pa.Schema) -> dict[str, str]:
    """Return what :func:`write_atlas` was told of the origin of a file; empty where it says nothing."""
    return json.loads((schema.metadata or {}).get(_ORIGIN.encode(), b"{}"))


def explorer_command(path: Path, has_images: bool) -> str:
    """Return the command that opens a file in a browser."""
    shown = f" --image {IMAGE}" if has_images else ""
    return f"uvx embedding-atlas {path} --x {COORDINATES[0]} --y {COORDINATES[1]}{shown}"


def _table(obs: pd.DataFrame, points: np.ndarray) -> pa.Table:
    columns = {_CELL: pa.array(obs.index.astype(str).tolist(), pa.string())}
    columns |= {name: pa.array(points[:, axis], pa.float32()) for axis, name in enumerate(COORDINATES)}
    return pa.table(columns | {str(name): _column(obs[name]) for name in obs})


def _column(values: pd.Series) -> pa.Array:
    """Numbers and times as they are, everything else as text; readers do not know categories."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype if values.notna().all() else object)
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        return pa.array(values, from_pandas=True)
    return pa.array([None if missing else str(value) for value, missing in zip(values, values.isna(), strict=True)])


def _image_column(found: CellImages, rows: np.ndarray, names: list[str], side: int) -> pa.Array:
    pictures: dict[int, bytes] = {}
    if len(found.rows):
        size = thumbnail_size(found.pixels.shape[2:], side)
        tiles = zip(found.rows.tolist(), found.pixels, strict=True)
        pictures = {row: _png(thumbnail(cell, size)) for row, cell in tiles}
    entries = [
        {"bytes": pictures[row], "path": f"{name}.png"} if row in pictures else None
        for row, name in zip(rows.tolist(), names, strict=True)
    ]
    return pa.array(entries, _IMAGE_TYPE)


def _png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    require("PIL.Image", extra="eval", package="dynaclr").fromarray(pixels).save(content, format="PNG")
    return content.getvalue()
