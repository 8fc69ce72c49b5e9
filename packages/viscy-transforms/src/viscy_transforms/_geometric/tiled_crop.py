"""Tiles of an image as samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice, product

from monai.transforms import MapTransform, MultiSampleTrait
from torch import Tensor

from viscy_transforms.typing import Sample

__all__ = ["TiledSpatialCropSamplesd"]


class TiledSpatialCropSamplesd(MapTransform, MultiSampleTrait):
    """Cut an image into tiles and return the first ones, running through X fastest.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (C, Z, Y, X), or with further axes in front.
    roi_size : tuple of int
        Size of a tile in Z, Y and X.
    num_samples : int
        Number of tiles.
    """

    def __init__(self, keys: str | Iterable[str], roi_size: tuple[int, int, int], num_samples: int) -> None:
        super().__init__(keys)
        self.roi_size, self.num_samples = tuple(roi_size), num_samples

    def __call__(self, sample: Sample) -> list[Sample]:
        """Return one dictionary per tile, with the keys and ``norm_meta`` if there is one.

        Raises
        ------
        ValueError
            If the image has fewer whole tiles than asked for.
        """
        tiles = {key: self._tiles(sample[key]) for key in self.key_iterator(sample)}
        out = [{key: tiles[key][i] for key in tiles} for i in range(self.num_samples)]
        if "norm_meta" in sample:
            out = [{**tile, "norm_meta": sample["norm_meta"]} for tile in out]
        return out

    def _tiles(self, image: Tensor) -> list[Tensor]:
        counts = [have // want for have, want in zip(image.shape[-3:], self.roi_size, strict=True)]
        if math.prod(counts) < self.num_samples:
            raise ValueError(
                f"num_samples is {self.num_samples}, but an image of {tuple(image.shape[-3:])} has {math.prod(counts)} "
                f"whole tiles of {self.roi_size}"
            )
        places = islice(product(*map(range, counts)), self.num_samples)
        return [image[..., *_box(place, self.roi_size)] for place in places]


def _box(place: tuple[int, ...], size: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(i * length, (i + 1) * length) for i, length in zip(place, size, strict=True))
