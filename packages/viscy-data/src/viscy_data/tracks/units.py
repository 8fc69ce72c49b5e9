"""Units of positions and times: what to divide by, so that they count pixels and frames of an image.

>>> steps("cells.csv", None, {"t": "frame", "y": "pixel"})
{'t': 1.0, 'y': 1.0}
"""

from __future__ import annotations

from collections.abc import Mapping

from viscy_data.errors import InputError, MissingInputError
from viscy_data.stores import FovInfo, read_attributes

__all__ = ["pixel_size", "steps"]

_COUNTS = ("pixel", "pixels", "px", "voxel", "frame", "frames")
_LENGTHS = {
    "angstrom": 1e-4,
    **dict.fromkeys(["nanometer", "nm"], 1e-3),
    **dict.fromkeys(["micrometer", "micrometre", "micron", "microns", "um", "\u00b5m", "\u03bcm"], 1.0),
    **dict.fromkeys(["millimeter", "mm"], 1e3),
    **dict.fromkeys(["centimeter", "cm"], 1e4),
    **dict.fromkeys(["meter", "m"], 1e6),
    "inch": 25_400.0,
}
_TIMES = {
    **dict.fromkeys(["millisecond", "ms"], 1e-3),
    **dict.fromkeys(["second", "sec", "s"], 1.0),
    **dict.fromkeys(["minute", "min"], 60.0),
    **dict.fromkeys(["hour", "h"], 3600.0),
    "day": 86_400.0,
}
_AXES = "tczyx"


def steps(where: str, fov: FovInfo | None, units: Mapping[str, str]) -> dict[str, float]:
    """Return what to divide the values along axes by.

    Parameters
    ----------
    where : str
        The file, for messages.
    fov : FovInfo, optional
        The image; the scale of its store says how large a pixel and how long a frame is. Where the store names no
        unit it means micrometres and seconds.
    units : mapping of str to str
        Unit of the values by axis ("t", "z", "y", "x"); "" is the unit of the store.

    Returns
    -------
    dict of str to float
        By axis; 1 for pixels and frames.

    Raises
    ------
    InputError
        If a unit is not known, or positions are in physical units and no store says how large a pixel is.
    """
    of_store = _units_of(fov) if fov is not None else {}
    return {axis: _step(where, fov, axis, unit.strip("() ").lower(), of_store) for axis, unit in units.items()}


def pixel_size(where: str, fov: FovInfo | None, unit: str) -> tuple[float, float, float]:
    """Return what to divide z, y and x by, all given in one unit; see :func:`steps`."""
    size = steps(where, fov, dict.fromkeys("zyx", unit))
    return size["z"], size["y"], size["x"]


def _step(where: str, fov: FovInfo | None, axis: str, unit: str, of_store: Mapping[str, str]) -> float:
    if unit in _COUNTS:
        return 1.0
    known, default = (_TIMES, "second") if axis == "t" else (_LENGTHS, "micrometer")
    counted = ("times", "long a frame") if axis == "t" else ("positions", "large a pixel")
    scale = fov.scale if fov is not None else (1.0,) * 5
    if (scale[0] if axis == "t" else scale[3:]) in (1.0, (1.0, 1.0)):
        raise InputError(
            where,
            field="units",
            found=f"{counted[0]} in {unit or 'unknown units'}, and nothing that says how {counted[1]} is",
            expected=f"a store with a scale (coordinateTransformations), or {counted[0]} in "
            f"{'frames' if axis == 't' else 'pixels'}",
        )
    store_unit = of_store.get(axis) or default
    for given in (unit or store_unit, store_unit):
        if given not in known:
            raise InputError(
                where, field=f"unit of {axis}", found=repr(given), expected=", ".join([_COUNTS[0], *known])
            )
    return scale[_AXES.index(axis)] * known[store_unit] / known[unit or store_unit]


def _units_of(fov: FovInfo) -> dict[str, str]:
    """Return the units that the metadata of an image give to its axes."""
    try:
        attributes = read_attributes(fov.store, fov.name)
    except MissingInputError:
        return {}
    ome = attributes.get("ome", attributes)
    axes = [axis for image in ome.get("multiscales", [])[:1] for axis in image.get("axes", [])]
    return {axis["name"].lower(): axis["unit"].lower() for axis in axes if isinstance(axis, dict) and axis.get("unit")}
