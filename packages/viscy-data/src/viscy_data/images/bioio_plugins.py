"""Any other format, with the plugins of bioio that are installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from viscy_data.errors import InputError
from viscy_data.images.files import ImageFile, ImagePosition, measured, shape_of_axes
from viscy_data.optional import require

__all__ = ["BioioImages"]


class BioioImages(ImageFile):
    """A file that a plugin of bioio reads; each scene is a position.

    Raises
    ------
    InputError
        If no installed plugin reads it.
    """

    def __init__(self, path: Path) -> None:
        bioio = require("bioio", extra="images")
        unsupported = require("bioio_base.exceptions", extra="images").UnsupportedFileFormatError
        try:
            self._image = bioio.BioImage(path)
        except unsupported as err:
            raise InputError(
                str(path),
                found=f"a format ({path.suffix or 'no suffix'}) that no installed reader knows",
                expected="TIFF, OME-TIFF, ND2, CZI or LIF, or what a plugin of bioio reads",
                fix="install the plugin of bioio for it, such as pip install bioio-bioformats, or export OME-TIFF",
            ) from err
        self.positions = tuple(self._describe(number, str(path)) for number in range(len(self._image.scenes)))

    def read(self, position: int, t: int, c: int, z: int) -> np.ndarray:
        """Read one plane, (Y, X)."""
        self._image.set_scene(position)
        return np.asarray(self._image.get_image_dask_data("YX", T=t, C=c, Z=z).compute())

    def close(self) -> None:
        """Do nothing: bioio opens the file for every read."""

    def _describe(self, number: int, where: str) -> ImagePosition:
        self._image.set_scene(number)
        sizes = dict(zip(self._image.dims.order, self._image.dims.shape, strict=True))
        pixel, interval = self._image.physical_pixel_sizes, self._image.time_interval
        height, width = measured(pixel.Y), measured(pixel.X)
        return ImagePosition(
            name=str(self._image.scenes[number]),
            shape=shape_of_axes(sizes, where),
            dtype=np.dtype(self._image.dtype).newbyteorder("="),
            channel_names=tuple(map(str, self._image.channel_names or [])),
            pixel_size_um=(height, width) if height and width else None,
            z_step_um=measured(pixel.Z),
            interval_seconds=measured(interval.total_seconds()) if hasattr(interval, "total_seconds") else None,
        )
