"""CZI of Zeiss, with pylibCZIrw."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from viscy_data.errors import InputError
from viscy_data.images.files import ImageFile, ImagePosition, measured, shape_of_axes
from viscy_data.optional import require

__all__ = ["ZeissImages"]

_DTYPES = {"Gray8": "uint8", "Gray16": "uint16", "Gray32Float": "float32"}
_DIMENSIONS = "Metadata/Information/Image/Dimensions"


class ZeissImages(ImageFile):
    """A CZI file; each scene is a position, its tiles put together."""

    def __init__(self, path: Path) -> None:
        self._czi = require("pylibCZIrw.czi", extra="images").CziReader(str(path))
        sizes = {axis: last - first for axis, (first, last) in self._czi.total_bounding_box.items()}
        self._first = {axis: first for axis, (first, _) in self._czi.total_bounding_box.items()}
        scenes = self._czi.scenes_bounding_rectangle_no_pyramid
        self._regions = list(scenes.items()) or [(None, self._czi.total_bounding_rectangle_no_pyramid)]
        sizes = {axis: size for axis, size in sizes.items() if axis not in ("S", "M")}
        facts = _facts(ElementTree.fromstring(self._czi.raw_metadata))
        dtype, names = _dtype(str(path), set(self._czi.pixel_types.values())), facts.pop("scene_names")
        present = self._present()
        self.positions = tuple(
            ImagePosition(
                name=names.get(scene or 0, ""),
                shape=(shape := shape_of_axes(sizes | {"Y": region.h, "X": region.w}, str(path))),
                dtype=dtype,
                missing=frozenset(np.ndindex(shape[:3])) - present.get(scene, set()),
                **facts,
            )
            for scene, region in self._regions
        )

    def read(self, position: int, t: int, c: int, z: int) -> np.ndarray:
        """Read one plane, (Y, X)."""
        scene, region = self._regions[position]
        plane = {axis: number + self._first.get(axis, 0) for axis, number in zip("TCZ", (t, c, z), strict=True)}
        return self._czi.read(roi=region, plane=plane, scene=scene)[..., 0]

    def close(self) -> None:
        """Close the file."""
        self._czi.close()

    def _present(self) -> dict[int | None, set[tuple[int, int, int]]]:
        """Find the planes of every scene of which there is any tile: the others are read as black."""
        has_scenes = self._regions[0][0] is not None
        present: dict[int | None, set[tuple[int, int, int]]] = {}

        def note(number: int, block: Any) -> bool:
            at = block.coordinate.to_dict()
            place = tuple(at.get(axis, 0) - self._first.get(axis, 0) if axis in at else 0 for axis in "TCZ")
            present.setdefault(at.get("S") if has_scenes else None, set()).add(place)
            return True

        self._czi.enumerate_subblocks(note)
        return present


def _dtype(where: str, kinds: set[str]) -> np.dtype:
    if len(kinds) == 1 and (name := _DTYPES.get(*kinds)):
        return np.dtype(name)
    raise InputError(
        where,
        field="pixel type",
        found=", ".join(sorted(kinds)),
        expected=f"one of {', '.join(_DTYPES)} in all channels",
        fix="export the channels as grey images of one type",
    )


def _facts(document: ElementTree.Element) -> dict[str, Any]:
    size = {
        item.get("Id"): measured(item.findtext("Value"), 1e6)
        for item in document.iterfind("Metadata/Scaling/Items/Distance")
    }
    channels = [channel.get("Name") or "" for channel in document.iterfind(f"{_DIMENSIONS}/Channels/Channel")]
    scenes = {
        int(scene.get("Index", 0)): " ".join(dict.fromkeys(filter(None, _names(scene))))
        for scene in document.iterfind(f"{_DIMENSIONS}/S/Scenes/Scene")
    }
    return {
        "scene_names": scenes,
        "channel_names": tuple(channels) if all(channels) else (),
        "pixel_size_um": (size["Y"], size["X"]) if size.get("Y") and size.get("X") else None,
        "z_step_um": size.get("Z"),
        "interval_seconds": measured(document.findtext(f"{_DIMENSIONS}/T/Positions/Interval/Increment")),
    }


def _names(scene: ElementTree.Element) -> list[str | None]:
    """Return what a scene is called: on a plate its well is the name of the array or of the shape."""
    shape = scene.find("Shape")
    return [scene.findtext("ArrayName"), None if shape is None else shape.get("Name"), scene.get("Name")]
