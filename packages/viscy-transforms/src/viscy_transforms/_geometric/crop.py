"""Crops of a batch: in the centre, or at a random place per sample."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import torch
from monai.transforms import MapTransform, Transform
from torch import Tensor

from viscy_transforms._batched import BatchedRandom, BatchedRandomd
from viscy_transforms._blocks import empty, memory_format_of, one_by_one

__all__ = [
    "BatchedCenterSpatialCrop",
    "BatchedCenterSpatialCropd",
    "BatchedRandSpatialCrop",
    "BatchedRandSpatialCropd",
    "crop_size",
]


class BatchedCenterSpatialCrop(Transform):
    """Cut out the centre of every sample.

    Parameters
    ----------
    roi_size : int or sequence of int
        Size per spatial axis, or one for all; 0 or less keeps the whole axis.

    Raises
    ------
    ValueError
        At call, if the crop is larger than the image.
    """

    def __init__(self, roi_size: Sequence[int] | int) -> None:
        self.roi_size = roi_size

    def __call__(self, img: Tensor) -> Tensor:
        """Return a view of ``img``, shape (B, C, Z, Y, X) or (B, C, Y, X), that starts at ``size // 2 - roi // 2``."""
        return _crop_center(img, crop_size(self.roi_size, img.shape[2:]))


class BatchedCenterSpatialCropd(MapTransform):
    """Dictionary form of :class:`BatchedCenterSpatialCrop`.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X).
    roi_size : int or sequence of int
        Size per spatial axis, or one for all; 0 or less keeps the whole axis.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    """

    def __init__(
        self, keys: str | Iterable[str], roi_size: Sequence[int] | int, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.cropper = BatchedCenterSpatialCrop(roi_size)

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a new dictionary in which the keys are cropped."""
        out = dict(data)
        for key in self.key_iterator(out):
            out[key] = self.cropper(out[key])
        return out


class BatchedRandSpatialCrop(BatchedRandom):
    """Cut a window of one size out of every sample, each at its own random place.

    Parameters
    ----------
    roi_size : int or sequence of int
        Size per spatial axis, or one for all; 0 or less keeps the whole axis.
    max_roi_size : None
        Belongs to ``random_size`` and is refused with it.
    random_center : bool, default True
        Whether the place is random, or the centre.
    random_size : bool, default False
        Refused when true: samples of different sizes make no batch.

    Raises
    ------
    ValueError
        If a random size is asked for, or at call when the crop is larger than the image.
    """

    computes = False
    places = True
    block_bytes = sys.maxsize  # windows are only copied: nothing has to stay in the cache

    def __init__(
        self,
        roi_size: Sequence[int] | int,
        max_roi_size: Sequence[int] | int | None = None,
        random_center: bool = True,
        random_size: bool = False,
    ) -> None:
        super().__init__(prob=1.0)
        if random_size or max_roi_size is not None:
            raise ValueError(
                "random_size and max_roi_size make samples of different sizes, which are no batch; "
                "leave them out and give roi_size"
            )
        self.roi_size, self.random_center = roi_size, random_center

    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        if not self.random_center:
            return ()
        size = torch.tensor(crop_size(self.roi_size, data.shape[2:]))
        places = torch.tensor(data.shape[2:]) - size + 1
        return ((self._rand(data.shape[0], len(size)) * places).long().clamp(max=places - 1),)

    def _shape(self, data: Tensor) -> tuple[int, ...]:
        return *data.shape[:2], *crop_size(self.roi_size, data.shape[2:])

    def _transform(self, data: Tensor, *starts: Tensor) -> Tensor:
        size = crop_size(self.roi_size, data.shape[2:])
        if not starts:
            return _crop_center(data, size)
        if one_by_one(data):  # windows are slices, copied in half the time of picking
            windows = zip(data.split(1), starts[0].tolist(), strict=True)
            out = None if data.requires_grad else empty(self._shape(data), data.dtype, data, memory_format_of(data))
            return torch.cat([_crop(sample, start, size) for sample, start in windows], out=out)
        for axis, length in enumerate(size, start=2):
            data = data.unfold(axis, length, 1)
        samples = torch.arange(len(data), device=data.device)
        # A view of all windows, (B, C, places..., size...); only the one picked per sample is copied.
        return data[samples, :, *starts[0].unbind(1)]


class BatchedRandSpatialCropd(BatchedRandomd):
    """Dictionary form of :class:`BatchedRandSpatialCrop`: all keys of a sample are cropped at the same place.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X) and the same spatial size.
    roi_size, max_roi_size, random_center, random_size
        See :class:`BatchedRandSpatialCrop`.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        roi_size: Sequence[int] | int,
        max_roi_size: Sequence[int] | int | None = None,
        random_center: bool = True,
        random_size: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        cropper = BatchedRandSpatialCrop(roi_size, max_roi_size, random_center, random_size)
        super().__init__(keys, cropper, allow_missing_keys)


def crop_size(roi_size: Sequence[int] | int, image: Sequence[int], name: str = "roi_size") -> tuple[int, ...]:
    """Return the size of a crop.

    Parameters
    ----------
    roi_size : int or sequence of int
        Size per spatial axis, or one for all; 0, less or None keeps the whole axis.
    image : sequence of int
        Size of the image.
    name : str, default "roi_size"
        Of the argument, for the message.

    Raises
    ------
    ValueError
        If the crop has other axes than the image, or is larger.
    """
    image = tuple(image)
    roi = (roi_size,) * len(image) if isinstance(roi_size, int) else tuple(roi_size)
    if len(roi) != len(image):
        raise ValueError(f"{name} {roi} does not have the {len(image)} spatial axes of an image {image}")
    size = tuple(want if want and want > 0 else have for want, have in zip(roi, image, strict=True))
    if any(want > have for want, have in zip(size, image, strict=True)):
        raise ValueError(f"{name} {roi} is larger than the image {image}; crop less, or read larger patches")
    return size


def _crop_center(data: Tensor, size: tuple[int, ...]) -> Tensor:
    places = zip(data.shape[2:], size, strict=True)
    return _crop(data, [min(max(have // 2 - want // 2, 0), have - want) for have, want in places], size)


def _crop(data: Tensor, starts: Sequence[int], size: tuple[int, ...]) -> Tensor:
    for axis, (start, length) in enumerate(zip(starts, size, strict=True), start=2):
        data = data.narrow(axis, start, length)
    return data
