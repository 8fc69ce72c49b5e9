"""LIF of Leica, with liffile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from viscy_data.images.files import ImageFile, ImagePosition, measured, shape_of_axes
from viscy_data.optional import require

__all__ = ["LeicaImages"]

_CHANNELS = "./Data/Image/ImageDescription/Channels/ChannelDescription"


class LeicaImages(ImageFile):
    """A LIF file; each image, and each tile of a mosaic (not put together), is a position."""

    def __init__(self, path: Path) -> None:
        self._file = require("liffile", extra="images").LifFile(path)
        try:
            images = list(self._file.images)
            self._places = [(image, tile) for image in images for tile in range(image.sizes.get("M", 1))]
            self.positions = tuple(_position(image, tile, str(path)) for image, tile in self._places)
        except BaseException:
            self.close()
            raise

    def read(self, position: int, t: int, c: int, z: int) -> np.ndarray:
        """Read one plane, (Y, X)."""
        image, tile = self._places[position]
        index = {"T": t, "C": c, "Z": z, "M": tile}
        plane = image.frame(**{axis: number for axis, number in index.items() if axis in image.sizes})
        return plane.reshape(image.sizes["Y"], image.sizes["X"])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _position(image: Any, tile: int, path: str) -> ImagePosition:
    where = f"{path}, image {image.path}"
    along = {axis: at for axis, at in image.coords.items() if axis in "TZYX" and len(at) > 1}  # metres, seconds
    step = {axis: measured(np.diff(at[:2])[0]) for axis, at in along.items()}
    step |= {axis: step[axis] * 1e6 for axis in "ZYX" if step.get(axis)}
    shape = shape_of_axes({axis: size for axis, size in image.sizes.items() if axis != "M"}, where)
    names = [_channel_name(channel) for channel in image.xml_element.iterfind(_CHANNELS)]
    return ImagePosition(
        name=f"{image.path}/{tile}" if image.sizes.get("M", 1) > 1 else image.path,
        shape=shape,
        dtype=image.dtype.newbyteorder("="),
        channel_names=tuple(names) if all(names) and len(names) == shape[1] else (),
        pixel_size_um=(step["Y"], step["X"]) if step.get("Y") and step.get("X") else None,
        z_step_um=step.get("Z"),
        interval_seconds=step.get("T"),
    )


def _channel_name(channel: Any) -> str:
    """Return the dye, or else the colour that a channel is shown in."""
    properties = {entry.findtext("Key"): entry.findtext("Value") for entry in channel.iterfind("ChannelProperty")}
    return properties.get("DyeName") or channel.get("LUTName") or ""
