"""TIFF with tifffile: plain, OME-TIFF, hyperstacks of ImageJ, stacks of Micro-Manager."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from viscy_data.errors import InputError
from viscy_data.images.files import ImageFile, ImagePosition, measured, shape_of_axes
from viscy_data.images.units import micrometres_per, seconds_per
from viscy_data.optional import require

__all__ = ["TiffImages"]

_POSITION_AXES = "RP"
_UNITS_OF_RESOLUTION = {2: 25400.0, 3: 10000.0}  # inch, centimetre
_LARGEST_PIXEL_UM = 20.0  # larger ones are resolutions for printers, such as 300 dots per inch


class TiffImages(ImageFile):
    """A TIFF file; each of its series, and each position of a Micro-Manager stack, is a position.

    Parameters
    ----------
    path : Path
    axes : str, optional
        Axes of a file that does not name them, or wrongly, such as ``"TYX"``.

    Raises
    ------
    InputError
        If the file does not say what its pages are, and ``axes`` does not either.
    """

    def __init__(self, path: Path, axes: str | None = None) -> None:
        self._tiff = require("tifffile", extra="images").TiffFile(path)
        try:
            self._series = [_Series(path, series, axes) for series in self._tiff.series]
            facts = self._facts()
            self._places = [(n, p) for n, series in enumerate(self._series) for p in range(series.n_positions)]
            self.positions = tuple(
                ImagePosition(
                    **{"name": self._series[n].name, **facts(n, p)},
                    shape=self._series[n].shape,
                    dtype=self._series[n].dtype,
                    missing=self._series[n].missing(p),
                )
                for n, p in self._places
            )
            files = {file for series in self._series for file in series.files}
            self.companions = frozenset(files - {Path(path).resolve()})
        except BaseException:
            self._tiff.close()
            raise

    def read(self, position: int, t: int, c: int, z: int) -> np.ndarray:
        """Read one plane, (Y, X)."""
        series, p = self._places[position]
        return self._series[series].read(p, t, c, z)

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()

    def _facts(self) -> Any:
        """Return the function ``(series, position) -> facts`` of the metadata that the file has."""
        if self._tiff.is_micromanager and (settings := self._tiff.micromanager_metadata):
            summary, first = settings.get("Summary") or {}, 0
            if self._series[0].n_positions < summary.get("Positions", 1) and "IndexMap" in settings:
                first = int(settings["IndexMap"][:, 3].min())  # one file of several
            facts = _micromanager(summary, _tag(self._tiff.pages.first, "MicroManagerMetadata") or {})
            return lambda n, p: {**facts, **_stage_label(summary, first + (n or p))}
        if self._tiff.is_ome:
            images = _ome_images(self._tiff.ome_metadata)
            return lambda n, p: images[n] if n < len(images) else {}
        page = self._tiff.pages.first
        if self._tiff.is_imagej:
            facts = _imagej(self._tiff.imagej_metadata, page)
        else:
            facts = {"pixel_size_um": _resolution(page, _UNITS_OF_RESOLUTION.get(_tag(page, "ResolutionUnit")))}
        return lambda n, p: facts


class _Series:
    """Pages that make one array."""

    def __init__(self, path: Path, series: Any, axes: str | None) -> None:
        self._series, self.name = series, str(series.name or "")
        self.dtype = np.dtype(series.dtype).newbyteorder("=")
        named = _named_axes(path, series, axes)
        self._sizes = dict(zip(named, series.shape, strict=True))
        self._outer = [axis for axis in named if axis not in "YX"]
        positions = [axis for axis in self._outer if axis in _POSITION_AXES]
        self._position_axis = positions[0] if positions else ""
        self.n_positions = self._sizes.get(self._position_axis, 1)
        others = {axis: size for axis, size in self._sizes.items() if axis != self._position_axis}
        self.shape = shape_of_axes(others, str(path))
        if named[-2:] != "YX":
            raise InputError(str(path), field="axes", found=named, expected="axes that end with YX")

    def read(self, position: int, t: int, c: int, z: int) -> np.ndarray:
        """Read a plane: by its page, or from where the pages lie one after the other."""
        number, n_pages = self._number(position, t, c, z), len(self._series.pages)
        plane = self.shape[3:]
        if n_pages == self._n_planes:
            return _pixels(self._series.pages[number]).reshape(plane)
        if self._series.dataoffset is not None:  # ImageJ writes one page for stacks of more than 4 GB
            size = math.prod(plane) * self.dtype.itemsize
            file = self._series.parent.filehandle
            file.seek(self._series.dataoffset + number * size)
            data = file.read(size)
            stored = self._series.dtype.newbyteorder(self._series.parent.byteorder)
            return np.frombuffer(data, stored).reshape(plane).astype(self.dtype)
        page, inside = divmod(number, self._n_planes // n_pages)
        return _pixels(self._series.pages[page]).reshape(-1, *plane)[inside]

    def missing(self, position: int) -> frozenset[tuple[int, int, int]]:
        """Find planes without a page."""
        pages = self._series.pages
        if len(pages) != self._n_planes or self._series.dataoffset is not None:
            return frozenset()
        places = np.ndindex(self.shape[:3])
        return frozenset(place for place in places if not _has_pixels(pages[self._number(position, *place)]))

    @property
    def files(self) -> set[Path]:
        """Files in which pages lie, if they are several."""
        if not self._series.is_multifile:
            return set()
        return {Path(page.parent.filehandle.path).resolve() for page in self._series.pages if page is not None}

    @property
    def _n_planes(self) -> int:
        return math.prod(self._sizes[axis] for axis in self._outer)

    def _number(self, position: int, t: int, c: int, z: int) -> int:
        index = {"T": t, "C": c, "Z": z, self._position_axis: position}
        number = 0
        for axis in self._outer:
            number = number * self._sizes[axis] + index.get(axis, 0)
        return number


def _pixels(page: Any) -> np.ndarray:
    """Read a page, which may lie in another file of the recording; that is open only while it is read."""
    file = page.parent.filehandle
    was_closed = file.closed
    file.open()
    try:
        return page.asarray()
    finally:
        if was_closed:
            file.close()


def _has_pixels(page: Any) -> bool:
    return page is not None and any(page.dataoffsets)


def _named_axes(path: Path, series: Any, axes: str | None) -> str:
    """Return the axes of a series: those that the user says, else those that the file names."""
    found = series.axes
    if found.endswith("S"):  # a colour image, whatever it is said to be
        return found
    sizes = " x ".join(str(size) for size in series.shape)
    if axes is not None:
        if len(axes) != len(found) or set(axes) - set("TCZYX") or len(set(axes)) < len(axes):
            expected = f"{len(found)} different letters of TCZYX, for an array of {sizes}"
            raise InputError(str(path), field="--axes", found=axes, expected=expected)
        return axes
    if any(axis in "IQS" and size > 1 for axis, size in zip(found, series.shape, strict=True)):
        raise InputError(
            str(path),
            field="axes",
            found=f"an array of {sizes}, and nothing that says what its pages are",
            expected="frames, slices or channels, named",
            fix="say so: --axes TYX for frames, ZYX for slices, CYX for channels, TCYX for both ...",
        )
    return found


def _tag(page: Any, name: str) -> Any:
    tag = page.tags.get(name)
    return None if tag is None else tag.value


def _resolution(page: Any, micrometres: float | None) -> tuple[float, float] | None:
    """Convert pixels per unit to the size of a pixel."""
    sizes = []
    for name in ("YResolution", "XResolution"):
        numerator, denominator = _tag(page, name) or (0, 0)
        sizes.append(measured(denominator / numerator if numerator else None, micrometres or math.nan))
    return tuple(sizes) if all(size and size < _LARGEST_PIXEL_UM for size in sizes) else None


def _imagej(metadata: Mapping[str, Any], page: Any) -> dict[str, Any]:
    per_unit = micrometres_per(metadata.get("unit"))
    labels = metadata.get("Labels") or []
    n_channels = int(metadata.get("channels", 1))
    names = tuple(dict.fromkeys(labels[:n_channels])) if len(labels) == metadata.get("images") else ()
    return {
        "channel_names": names if len(names) == n_channels and n_channels > 1 else (),
        "pixel_size_um": _resolution(page, per_unit),
        "z_step_um": measured(metadata.get("spacing"), micrometres_per(metadata.get("zunit", metadata.get("unit")))),
        "interval_seconds": measured(metadata.get("finterval"), seconds_per(metadata.get("tunit", "s"))),
    }


def _micromanager(summary: Mapping[str, Any], page: Mapping[str, Any]) -> dict[str, Any]:
    size = measured(page.get("PixelSizeUm")) or measured(summary.get("PixelSize_um"))
    names = summary.get("ChNames") or []
    return {
        "channel_names": tuple(map(str, names)),
        "pixel_size_um": (size, size) if size else None,
        "z_step_um": measured(summary.get("z-step_um")),
        "interval_seconds": measured(summary.get("Interval_ms"), 1e-3),
    }


def _stage_label(summary: Mapping[str, Any], position: int) -> dict[str, str]:
    labelled = summary.get("StagePositions") or summary.get("InitialPositionList") or []
    label = labelled[position].get("Label") if position < len(labelled) else None
    return {"name": str(label)} if label else {}


def _ome_images(xml: str) -> list[dict[str, Any]]:
    """Read name, channels and sizes of every image of an OME document."""
    root = ElementTree.fromstring(xml)
    images = []
    for image in root.iterfind("{*}Image"):
        pixels = image.find("{*}Pixels")
        sizes = {axis: _ome_size(pixels, f"PhysicalSize{axis}", "µm", micrometres_per) for axis in "XYZ"}
        names = tuple(channel.get("Name") or "" for channel in pixels.iterfind("{*}Channel"))
        images.append(
            {
                "name": image.get("Name") or "",
                "channel_names": names if all(names) else (),
                "pixel_size_um": (sizes["Y"], sizes["X"]) if sizes["Y"] and sizes["X"] else None,
                "z_step_um": sizes["Z"],
                "interval_seconds": _ome_size(pixels, "TimeIncrement", "s", seconds_per) or _plane_interval(pixels),
            }
        )
    return images


def _ome_size(pixels: Any, name: str, unit: str, per_unit: Any) -> float | None:
    return measured(pixels.get(name), per_unit(pixels.get(f"{name}Unit", unit)))


def _plane_interval(pixels: Any) -> float | None:
    """Return the mean time between frames of the first channel and slice."""
    times = {
        int(plane.get("TheT", 0)): float(plane.get("DeltaT")) * seconds_per(plane.get("DeltaTUnit", "s"))
        for plane in pixels.iterfind("{*}Plane")
        if plane.get("DeltaT") and plane.get("TheC") == plane.get("TheZ") == "0"
    }
    first, last = min(times, default=0), max(times, default=0)
    return measured((times[last] - times[first]) / (last - first)) if last > first else None
