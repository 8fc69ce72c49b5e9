"""Files as trackers write them, made from a tracking table: for tests of readers, and of what documents say of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from viscy_data.optional import from_extra, require

with from_extra("triplet"):
    import pandas as pd

__all__ = [
    "lineage_table",
    "write_btrack_csv",
    "write_btrack_hdf5",
    "write_ctc",
    "write_trackmate_csv",
    "write_trackmate_xml",
]

_MICRONS = (0.5, 0.25)


def lineage_table() -> pd.DataFrame:
    """Return a small FOV, of 64 x 64 pixels and 6 frames: a gap, a division, and a cell that is alone."""
    rows = [
        *[(1, 0, 4.0, 8.0, -1), (1, 1, 5.0, 9.0, -1), (1, 3, 6.0, 9.0, -1)],
        *[(2, 4, 7.0, 12.0, 1), (2, 5, 8.0, 13.0, 1), (3, 4, 2.0, 5.0, 1)],
        *[(9, 2, 20.0, 30.0, -1), (9, 3, 21.0, 31.0, -1)],
    ]
    return pd.DataFrame(rows, columns=["track_id", "t", "y", "x", "parent_track_id"])


def write_trackmate_xml(
    path: Path,
    table: pd.DataFrame,
    *,
    links: Sequence[tuple[int, int]] | None = None,
    unit: str = "micron",
    size: tuple[float, float] = _MICRONS,
    n_single: int = 0,
) -> Path:
    """Write the XML file of TrackMate.

    Parameters
    ----------
    path : Path
    table : pandas.DataFrame
        ``track_id, t, y, x, parent_track_id``. Spots are numbered from 100 in its order.
    links : sequence of (int, int), optional
        Links between spots; those of the table by default.
    unit : str, default "micron"
        Unit of the positions.
    size : tuple of float, default (0.5, 0.25)
        Of a pixel along y and x, unless the unit is "pixel".
    n_single : int, default 0
        Spots without a track.
    """
    ids = dict(zip(zip(table["track_id"], table["t"], strict=True), itertools.count(100), strict=False))
    height, width = (1.0, 1.0) if unit == "pixel" else size
    spots = [
        f'<Spot ID="{ids[row.track_id, row.t]}" FRAME="{row.t}" POSITION_X="{row.x * width}" '
        f'POSITION_Y="{row.y * height}" POSITION_Z="0.0" name="s"/>'
        for row in table.itertuples()
    ]
    spots += [f'<Spot ID="{k}" FRAME="0" POSITION_X="1" POSITION_Y="1" POSITION_Z="0"/>' for k in range(n_single)]
    edges = [
        f'<Edge SPOT_SOURCE_ID="{a}" SPOT_TARGET_ID="{b}"/>'
        for a, b in (_links(table, ids) if links is None else links)
    ]
    path.write_text(
        f'<?xml version="1.0"?><TrackMate version="7"><Model spatialunits="{unit}" timeunits="sec">'
        f"<AllSpots><SpotsInFrame>{''.join(spots)}</SpotsInFrame></AllSpots>"
        f'<AllTracks><Track TRACK_ID="0">{"".join(edges)}</Track></AllTracks></Model></TrackMate>'
    )
    return path


def write_trackmate_csv(path: Path, table: pd.DataFrame, size: tuple[float, float] = _MICRONS) -> Path:
    """Write TrackMate's table of spots, in micrometres, with its three further lines of headers."""
    header = [
        "LABEL,ID,TRACK_ID,QUALITY,POSITION_X,POSITION_Y,POSITION_Z,FRAME",
        "Label,Spot ID,Track ID,Quality,X,Y,Z,Frame",
        "Label,Spot ID,Track ID,Quality,X,Y,Z,Frame",
        ",,,(quality),(micron),(micron),(micron),",
    ]
    rows = [
        f"ID{row.Index},{row.Index},{row.track_id},1.5,{row.x * size[1]},{row.y * size[0]},0,{row.t}"
        for row in table.itertuples()
    ]
    path.write_text("\n".join([*header, *rows]) + "\n")
    return path


def write_ctc(
    folder: Path,
    table: pd.DataFrame,
    name: str = "man_track.txt",
    image: str = "man_track{:03d}.tif",
    shape: tuple[int, int] = (64, 64),
) -> Path:
    """Write label images (three pixels in a row about the centre of each cell) and the file of tracks, L B E P."""
    tifffile = require("tifffile", extra="livecell")
    folder.mkdir(parents=True, exist_ok=True)
    for t in range(table["t"].max() + 1):
        labels = np.zeros(shape, np.uint16)
        for row in table[table["t"] == t].itertuples():
            labels[int(row.y), int(row.x) - 1 : int(row.x) + 2] = row.track_id
        tifffile.imwrite(folder / image.format(t), labels)
    spans = table.groupby("track_id").agg(b=("t", "min"), e=("t", "max"), p=("parent_track_id", "first"))
    lines = [f"{track} {row.b} {row.e} {max(row.p, 0)}" for track, row in spans.iterrows()]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def write_btrack_csv(path: Path, table: pd.DataFrame) -> Path:
    """Write the table of btrack, in which a track without a mother is its own."""
    rows = table.rename(columns={"track_id": "ID", "parent_track_id": "parent"}).assign(z=0.0, dummy=False)
    rows["parent"] = rows["parent"].where(rows["parent"] >= 0, rows["ID"])
    rows.to_csv(path, index=False)
    return path


def write_btrack_hdf5(
    path: Path, table: pd.DataFrame, *, n_untracked: int = 0, dummies: Sequence[int] = (), expression: str | None = None
) -> Path:
    """Write the HDF5 file of btrack: objects with a property ``area`` (10, 11, ...), tracks, LBEPR.

    Parameters
    ----------
    path : Path
    table : pandas.DataFrame
        ``track_id, t, y, x, parent_track_id``, sorted by track.
    n_untracked : int, default 0
        Objects of area 0 that belong to no track: before the others with an ``expression``, else behind them.
    dummies : sequence of int, optional
        Rows that were interpolated.
    expression : str, optional
        By which objects were filtered before they were tracked and counted.
    """
    h5py = require("h5py", extra="anndata", package="viscy-utils")
    real = table.drop(index=list(dummies))
    reference = {row: number for number, row in enumerate(real.index)}
    reference |= {row: -(number + 1) for number, row in enumerate(dummies)}
    spans, refs, lbep = [], [], []
    for track, own in table.groupby("track_id"):
        spans.append((len(refs), len(refs) + len(own)))
        refs += [reference[row] for row in own.index]
        parent = own["parent_track_id"].iloc[0]
        lbep.append((track, own["t"].min(), own["t"].max(), parent if parent >= 0 else track, track, 0))
    parts = [
        (_coordinates(real), 10.0 + np.arange(len(real))),
        (np.zeros((n_untracked, 5)), np.zeros(n_untracked)),
    ]
    coords, area = (np.concatenate(each) for each in zip(*(parts[::-1] if expression else parts), strict=True))
    with h5py.File(path, "w") as file:
        file["objects/obj_type_1/coords"], file["objects/obj_type_1/properties/area"] = coords, area
        tracks = file.create_group("tracks/obj_type_1")
        tracks["tracks"], tracks["map"] = np.array(refs, np.int32), np.array(spans, np.uint32)
        tracks["LBEPR"], tracks["fates"] = np.array(lbep, np.int32), np.zeros(len(lbep), np.int32)
        if dummies:
            tracks["dummies"] = _coordinates(table.loc[list(dummies)])
        if expression:
            tracks.attrs["f_expr"] = expression
    return path


def _coordinates(rows: pd.DataFrame) -> np.ndarray:
    return np.column_stack([rows["t"], rows["x"], rows["y"], np.zeros(len(rows)), np.ones(len(rows))])


def _links(table: pd.DataFrame, ids: dict[tuple[int, int], int]) -> list[tuple[int, int]]:
    links = []
    for track, own in table.groupby("track_id"):
        times = sorted(own["t"])
        links += [(ids[track, a], ids[track, b]) for a, b in itertools.pairwise(times)]
        parent = own["parent_track_id"].iloc[0]
        if parent >= 0:
            links.append((ids[parent, table.loc[table["track_id"] == parent, "t"].max()], ids[track, times[0]]))
    return links
