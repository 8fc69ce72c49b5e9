"""Plates and images as other programs write them: any axes, any codec, arrays and channels named as one likes.

>>> import tempfile, numpy as np
>>> from viscy_data.stores import read_plate
>>> movie = np.zeros((2, 3, 8, 9), np.uint8)
>>> path = tempfile.mkdtemp() + "/p.zarr"
>>> path = write_foreign_plate(path, {"A/1/0": movie}, axes="tcyx", channel_names=["a", "b", "c"])
>>> [fov] = read_plate(path)
>>> fov.axes, fov.shape
('tcyx', (2, 3, 1, 8, 9))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from viscy_data.stores.writing import ALL_CHUNKS, pipeline_of_all_chunks

__all__ = ["write_foreign_image", "write_foreign_plate", "write_foreign_series"]


def write_foreign_plate(
    path: str | Path,
    images: Mapping[str, np.ndarray],
    *,
    axes: str | None = "tczyx",
    channel_names: Sequence[str | None] | None = None,
    scale: Sequence[float] | None = None,
    array_key: str = "0",
    version: Literal["0.4", "0.5"] = "0.5",
    listed_wells: Sequence[str] = (),
    **array_options: Any,
) -> Path:
    """Write a plate with zarr alone.

    Parameters
    ----------
    path : str or Path
        Where the store will be.
    images : mapping of str to ndarray
        Pixels of each FOV, in the order of ``axes``.
    axes : str, optional
        Names of the axes in the order of the store; None writes no ``axes``.
    channel_names : sequence of (str or None), optional
        Labels of the omero block; without them there is no such block.
    scale : sequence of float, optional
        In the order of ``axes``.
    array_key : str, default "0"
        Path of the array inside its FOV.
    version : {"0.5", "0.4"}, default "0.5"
        OME-NGFF version: 0.5 is Zarr v3, 0.4 is Zarr v2.
    listed_wells : sequence of str
        Further wells that the metadata list, and that are not there.
    **array_options
        For :func:`zarr.create_array`: ``chunks``, ``compressors``, ``filters``.

    Returns
    -------
    Path
        The store.
    """
    import zarr

    plate = zarr.open_group(path, mode="w-", zarr_format=3 if version == "0.5" else 2)
    fovs_of: dict[str, list[str]] = {well: [] for well in listed_wells}
    for name, pixels in images.items():
        well, _, fov = name.rpartition("/")
        fovs_of.setdefault(well, []).append(fov)
        _write_image(plate.require_group(name), pixels, axes, channel_names, scale, array_key, version, array_options)
    for well, fovs in fovs_of.items():
        if fovs:
            _set_ome(plate.require_group(well), version, {"well": {"images": [{"path": fov} for fov in fovs]}})
    rows, columns = (sorted({well.split("/")[part] for well in fovs_of}) for part in (0, 1))
    wells = [
        {"path": well, "rowIndex": rows.index(well.split("/")[0]), "columnIndex": columns.index(well.split("/")[1])}
        for well in fovs_of
    ]
    names = {"rows": [{"name": row} for row in rows], "columns": [{"name": column} for column in columns]}
    _set_ome(plate, version, {"plate": {"wells": wells, **names}})
    return Path(path)


def write_foreign_image(
    path: str | Path,
    pixels: np.ndarray,
    axes: str | None = "tczyx",
    channel_names: Sequence[str | None] | None = None,
    scale: Sequence[float] | None = None,
    array_key: str = "0",
    version: Literal["0.4", "0.5"] = "0.5",
    **array_options: Any,
) -> Path:
    """Write an image that is in no plate; arguments as for :func:`write_foreign_plate`."""
    import zarr

    group = zarr.open_group(path, mode="w-", zarr_format=3 if version == "0.5" else 2)
    _write_image(group, pixels, axes, channel_names, scale, array_key, version, array_options)
    return Path(path)


def write_foreign_series(
    path: str | Path, images: Mapping[str, np.ndarray], *, listed: bool = True, version: str = "0.4", **options: Any
) -> Path:
    """Write several images in the layout of bioformats2raw.

    Parameters
    ----------
    path : str or Path
        Where the store will be.
    images : mapping of str to ndarray
        Pixels by name; ``"0"``, ``"1"``, ... where nothing lists them.
    listed : bool, default True
        Write the group ``OME`` with the list of the images.
    version : {"0.4", "0.5"}, default "0.4"
    **options
        As for :func:`write_foreign_image`.

    Returns
    -------
    Path
        The store.
    """
    import zarr

    root = zarr.open_group(path, mode="w-", zarr_format=3 if version == "0.5" else 2)
    _set_ome(root, version, {"bioformats2raw.layout": 3})
    if listed:
        _set_ome(root.require_group("OME"), version, {"series": list(images)})
    for name, pixels in images.items():
        write_foreign_image(Path(path) / name, pixels, version=version, **options)
    return Path(path)


def _write_image(
    group: Any,
    pixels: np.ndarray,
    axes: str | None,
    channel_names: Sequence[str | None] | None,
    scale: Sequence[float] | None,
    array_key: str,
    version: str,
    array_options: Mapping[str, Any],
) -> None:
    with pipeline_of_all_chunks():
        group.create_array(array_key, data=pixels, **{"config": ALL_CHUNKS} | array_options)
    _set_ome(group, version, _image_metadata(axes, channel_names, scale, array_key))


def _image_metadata(
    axes: str | None, channel_names: Sequence[str | None] | None, scale: Sequence[float] | None, array_key: str
) -> dict[str, Any]:
    dataset: dict[str, Any] = {"path": array_key}
    if scale is not None:
        dataset["coordinateTransformations"] = [{"type": "scale", "scale": list(scale)}]
    multiscale: dict[str, Any] = {"datasets": [dataset]}
    if axes is not None:
        types = {"t": "time", "c": "channel"}
        multiscale["axes"] = [{"name": axis, "type": types.get(axis, "space")} for axis in axes]
    metadata: dict[str, Any] = {"multiscales": [multiscale]}
    if channel_names is not None:
        metadata["omero"] = {"channels": [{"label": name} for name in channel_names]}
    return metadata


def _set_ome(group: Any, version: str, metadata: dict[str, Any]) -> None:
    group.attrs.update({"ome": {"version": "0.5", **metadata}} if version == "0.5" else metadata)
