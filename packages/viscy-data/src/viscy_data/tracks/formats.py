r"""One reader for the tracks of several programs: the file is recognised, the table is always the same.

>>> import tempfile
>>> from pathlib import Path
>>> source = Path(tempfile.mkdtemp()) / "btrack.csv"
>>> _ = source.write_text("ID,t,x,y,z,parent,root\n1,0,5,6,0,1,1\n2,1,5,6,0,1,1\n")
>>> recognise(source), import_tracks(source).table["parent_track_id"].tolist()
('btrack', [-1, 1])
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from viscy_data.checks import near_matches
from viscy_data.errors import InputError, MissingInputError
from viscy_data.stores import FovInfo
from viscy_data.tracks.btrack import BTRACK, read_btrack_csv, read_btrack_hdf5
from viscy_data.tracks.ctc import CTC_FILES, read_ctc
from viscy_data.tracks.dialect import REQUIRED, TRACKMATE, read_text_table
from viscy_data.tracks.geff import read_geff
from viscy_data.tracks.imported import ImportedTracks
from viscy_data.tracks.napari import read_napari
from viscy_data.tracks.reading import read_tracks
from viscy_data.tracks.trackmate import read_trackmate_csv, read_trackmate_xml

__all__ = ["FORMATS", "TracksFormat", "import_tracks", "recognise"]


_SUFFIXES = {
    ".xml": "trackmate-xml",
    **dict.fromkeys([".h5", ".hdf5", ".hdf"], "btrack-hdf5"),
    **dict.fromkeys([".npz", ".npy"], "napari"),
}


class TracksFormat(NamedTuple):
    """A program's way to keep tracks: what it is, and its reader ``(path, fov) -> ImportedTracks``."""

    description: str
    read: Callable[[Path, FovInfo | None], ImportedTracks]


def import_tracks(source: str | Path, fov: FovInfo | None = None, *, format: str = "auto") -> ImportedTracks:
    """Read the tracks of one FOV, whichever program wrote them.

    Parameters
    ----------
    source : str or Path
        File, or folder for the Cell Tracking Challenge and GEFF.
    fov : FovInfo, optional
        The image; its scale converts positions in physical units to pixels.
    format : str, default "auto"
        A name of :data:`FORMATS`; "auto" looks at the file.

    Raises
    ------
    MissingInputError
        If there is no such file.
    InputError
        If the format is not known, or the file is not of it.
    """
    path = Path(source)
    if not path.exists():
        raise MissingInputError(str(path), found="nothing", expected="tracks")
    name = recognise(path) if format == "auto" else format
    if name not in FORMATS:
        raise InputError("format", found=repr(name), expected=near_matches(name, ["auto", *FORMATS]))
    return FORMATS[name].read(path, fov)


def recognise(path: Path) -> str:
    """Tell the format of a file by its name and its columns.

    Raises
    ------
    InputError
        If it is none of them.
    """
    if path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs")):
        return "geff"
    if path.is_dir() or path.name in CTC_FILES:
        return "ctc"
    if (name := _SUFFIXES.get(path.suffix.lower())) is not None:
        return name
    names = set(read_text_table(path).columns.column_names)
    for columns, name in ((REQUIRED, "table"), (TRACKMATE, "trackmate-csv"), (BTRACK, "btrack")):
        if set(columns) <= names:
            return name
    raise InputError(
        str(path),
        found=f"columns {', '.join(sorted(names))}",
        expected="; ".join(f"{name}: {known.description}" for name, known in FORMATS.items()),
    )


def _read_table(path: Path, fov: FovInfo | None) -> ImportedTracks:
    notes: list[str] = []
    return ImportedTracks(read_tracks(path, notes=notes), tuple(notes))


FORMATS = {
    "table": TracksFormat("CSV with track_id, t, y, x in pixels, as ultrack writes it", _read_table),
    "btrack": TracksFormat("CSV of btrack, with ID, t, x, y, parent", lambda path, fov: read_btrack_csv(path)),
    "btrack-hdf5": TracksFormat("HDF5 file of btrack", lambda path, fov: read_btrack_hdf5(path)),
    "trackmate-csv": TracksFormat("table of spots of TrackMate, with TRACK_ID, FRAME, POSITION_X", read_trackmate_csv),
    "trackmate-xml": TracksFormat("XML file of TrackMate", read_trackmate_xml),
    "ctc": TracksFormat(
        "folder of the Cell Tracking Challenge, with label images and man_track.txt or res_track.txt",
        lambda path, fov: read_ctc(path),
    ),
    "napari": TracksFormat(
        "data and graph of a tracks layer of napari: .npz, or .npy with .json beside it",
        lambda path, fov: read_napari(path),
    ),
    "geff": TracksFormat("GEFF group (Zarr), with axes and units", read_geff),
}
"""Formats by name."""
