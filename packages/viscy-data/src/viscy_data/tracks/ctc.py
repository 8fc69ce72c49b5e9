"""Tracks of the Cell Tracking Challenge: label images, and a text file of tracks ``L B E P``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from viscy_data.errors import InputError, reading_file
from viscy_data.optional import require
from viscy_data.tracks.imported import ImportedTracks

__all__ = ["CTC_FILES", "read_ctc"]

CTC_FILES = ("man_track.txt", "res_track.txt")
"""Names of the file of tracks: of a ground truth, and of a result."""

_IMAGE = re.compile(r"(?:man_track|mask)(\d+)\.tiff?", re.IGNORECASE)


def read_ctc(path: Path) -> ImportedTracks:
    """Read tracks of the Cell Tracking Challenge; a cell is at the centre of mass of its label.

    Parameters
    ----------
    path : Path
        The folder, or the file of tracks in it. Reading images needs the extra ``livecell`` (tifffile).

    Returns
    -------
    ImportedTracks
        Labels of images that have no line in the file of tracks are left out and counted; frames without a label of a
        track that lasts (gaps), and parents without a line, are counted.

    Raises
    ------
    InputError
        If the file of tracks or the images are missing, or a line is not four whole numbers.
    """
    file = _tracks_file(Path(path))
    lines = _lines(file)
    images = sorted(
        (int(match.group(1)), image) for image in file.parent.iterdir() if (match := _IMAGE.fullmatch(image.name))
    )
    if not images:
        raise InputError(str(file.parent), found="no label image", expected="man_track000.tif or mask000.tif, ...")
    read_image = require("tifffile", extra="livecell").imread
    cells = []
    for t, image in images:
        with reading_file(image, "a label image"):
            labels = read_image(image)
        cells.append(_cells(t, labels))
    rows = np.concatenate(cells)
    known = np.isin(rows[:, 0], lines[:, 0])
    place = np.searchsorted(lines[:, 0], rows[known, 0])
    absent = (lines[:, 3] > 0) & ~np.isin(lines[:, 3], lines[:, 0])
    columns = {name: rows[known, column] for column, name in enumerate(("track_id", "t", "z", "y", "x"))}
    table = require("pandas", extra="triplet").DataFrame(columns)
    table = table.astype({"track_id": np.int64, "t": np.int64, "z": np.float32, "y": np.float32, "x": np.float32})
    table["parent_track_id"] = np.where((lines[:, 3] == 0) | absent, -1, lines[:, 3])[place]
    n_expected, n_strange = int((lines[:, 2] - lines[:, 1] + 1).sum()), int((~known).sum())
    notes = [f"{n_strange} labels have no line in {file.name} and are left out"] if n_strange else []
    if absent.any():
        notes.append(f"{int(absent.sum())} tracks name a parent that is not in {file.name}, and begin without one")
    if n_expected > len(table):
        notes.append(f"{n_expected - len(table)} frames of tracks have no label (gaps)")
    return ImportedTracks(table if table["z"].any() else table.drop(columns="z"), tuple(notes))


def _tracks_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = [path / name for name in CTC_FILES if (path / name).is_file()]
    if len(found) != 1:
        shown = "both" if found else "none"
        raise InputError(str(path), found=shown, expected=f"one of {' and '.join(CTC_FILES)}")
    return found[0]


def _lines(file: Path) -> np.ndarray:
    """Return the lines L B E P, sorted by L."""
    with reading_file(file, "lines of four whole numbers"):
        rows = [line.split() for line in file.read_text().splitlines() if line.strip()]
    for number, row in enumerate(rows):
        if len(row) != 4 or not all(re.fullmatch(r"\d+", cell) for cell in row):
            found, expected = f"{' '.join(row)!r} in line {number + 1}", "four whole numbers: label, begin, end, parent"
            raise InputError(str(file), found=found, expected=expected)
    lines = np.array(rows, np.int64).reshape(-1, 4)
    labels, counts = np.unique(lines[:, 0], return_counts=True)
    if (counts > 1).any():
        raise InputError(
            str(file), found=f"track {labels[counts > 1][0]} in several lines", expected="one line per track"
        )
    return lines[np.argsort(lines[:, 0])]


def _cells(t: int, labels: np.ndarray) -> np.ndarray:
    """Return label, frame, z, y and x of every label of an image of two or three axes."""
    present, inverse, size = np.unique(labels, return_inverse=True, return_counts=True)
    rows = np.zeros((len(present), 5))
    rows[:, 0], rows[:, 1] = present, t
    for axis, column in zip(range(labels.ndim), range(5 - labels.ndim, 5), strict=True):
        shape = [1] * labels.ndim
        shape[axis] = -1
        places = np.broadcast_to(np.arange(labels.shape[axis]).reshape(shape), labels.shape)
        rows[:, column] = np.bincount(inverse.ravel(), places.ravel(), len(present)) / size
    return rows[present > 0]
