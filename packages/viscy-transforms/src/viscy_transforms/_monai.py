"""MONAI's dictionary transforms with typed signatures, as configs name them.

MONAI's transforms take one sample (C, Z, Y, X). The random and cropping ones here also take batches (B, C, Z, Y, X):
each sample then is transformed on its own, with its own draw, the same for all its keys. For long trainings prefer the
``Batched*`` transforms, which do the whole batch at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from monai import transforms as monai
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from numpy.typing import DTypeLike
from torch import Tensor

from viscy_transforms._geometric.crop import crop_size

__all__ = [
    "CenterSpatialCropd",
    "Decollated",
    "NormalizeIntensityd",
    "RandAdjustContrastd",
    "RandAffined",
    "RandFlipd",
    "RandGaussianNoised",
    "RandGaussianSmoothd",
    "RandScaleIntensityd",
    "RandSpatialCropd",
    "RandWeightedCropd",
    "ScaleIntensityRangePercentilesd",
    "ToDeviced",
]

_BATCH_NDIM = 5


class _EachSample(MapTransform):
    """Let a transform of samples (C, Z, Y, X) take batches (B, C, Z, Y, X) as well."""

    def __call__(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Transform a sample, or every sample of a batch with a draw of its own.

        Returns
        -------
        dict
            A new dictionary. Batches become plain tensors of the dtype they had.
        """
        keys = [key for key in self.key_iterator(data) if getattr(data[key], "ndim", 0) == _BATCH_NDIM]
        if not keys:
            return super().__call__(data, *args, **kwargs)
        sizes = {key: len(data[key]) for key in self.key_iterator(data)}
        if len(set(sizes.values())) > 1 or len(keys) < len(sizes):
            raise ValueError(f"{type(self).__name__} needs all its keys to be batches of one size, found {sizes}")
        one = super().__call__
        samples = [one({key: data[key][i] for key in keys}, *args, **kwargs) for i in range(sizes[keys[0]])]
        return {**data, **{key: _batch([sample[key] for sample in samples], data[key]) for key in keys}}


class _InsideImage(MapTransform):
    """Refuse a window larger than the image, of which MONAI would return less than was asked for."""

    _window = "roi_size"  # the name of the size, also on MONAI's cropper

    def __call__(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Crop samples (C, Z, Y, X).

        Raises
        ------
        ValueError
            If the window is larger than the image.
        """
        for key in self.key_iterator(data):
            crop_size(getattr(self.cropper, self._window), data[key].shape[1:], self._window)
        return super().__call__(data, *args, **kwargs)


def _batch(samples: list[Tensor], like: Tensor) -> Tensor:
    stacked = torch.stack([convert_to_tensor(sample, track_meta=False) for sample in samples])
    return stacked.to(like.dtype) if like.is_floating_point() else stacked


class Decollated(monai.Decollated):
    """Split a dictionary of batches into a list of samples.

    Parameters
    ----------
    keys : str or sequence of str
        Entries to split.
    detach : bool, default True
        Whether to detach tensors.
    pad_batch : bool, default True
        Whether entries shorter than the batch are padded.
    fill_value : float, optional
        What they are padded with.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        detach: bool = True,
        pad_batch: bool = True,
        fill_value: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys=keys, detach=detach, pad_batch=pad_batch, fill_value=fill_value, **kwargs)


class ToDeviced(monai.ToDeviced):
    """Move tensors to a device: ``device``, ``non_blocking`` and so on are passed on."""

    def __init__(self, keys: Sequence[str] | str, **kwargs: Any) -> None:
        super().__init__(keys=keys, **kwargs)


class RandWeightedCropd(_InsideImage, monai.RandWeightedCropd):
    """Cut several windows out of one sample (C, Z, Y, X), at places drawn from a weight map.

    Parameters
    ----------
    keys : str or sequence of str
        Entries to crop.
    w_key : str
        Entry with the weights.
    spatial_size : sequence of int
        Size of a window.
    num_samples : int, default 1
        Number of windows; the result is a list of as many dictionaries.

    Raises
    ------
    ValueError
        At call, if a window is larger than the image.
    """

    _window = "spatial_size"

    def __init__(
        self,
        keys: Sequence[str] | str,
        w_key: str,
        spatial_size: Sequence[int],
        num_samples: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys=keys, w_key=w_key, spatial_size=spatial_size, num_samples=num_samples, **kwargs)


class RandAffined(_EachSample, monai.RandAffined):
    """Rotate, shear and scale at random; takes samples and batches.

    Parameters
    ----------
    keys : str or sequence of str
        Entries to transform.
    prob : float
        Probability of a sample to be transformed.
    rotate_range, shear_range : float or sequence
        Radians, in the order Z, Y, X; a number r is the range (-r, r).
    scale_range : float or sequence
        As above; 1 is added, so that 0 is no change.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        prob: float,
        rotate_range: Sequence[float | Sequence[float]] | float,
        shear_range: Sequence[float | Sequence[float]] | float,
        scale_range: Sequence[float | Sequence[float]] | float,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            keys=keys,
            prob=prob,
            rotate_range=rotate_range,
            shear_range=shear_range,
            scale_range=scale_range,
            **kwargs,
        )


class RandAdjustContrastd(_EachSample, monai.RandAdjustContrastd):
    """Gamma correction with a random power ``gamma`` (a number above 1 is the range (0.5, gamma))."""

    def __init__(
        self, keys: Sequence[str] | str, prob: float, gamma: tuple[float, float] | float, **kwargs: Any
    ) -> None:
        super().__init__(keys=keys, prob=prob, gamma=gamma, **kwargs)


class RandScaleIntensityd(_EachSample, monai.RandScaleIntensityd):
    """Multiply by 1 + f with a random f from ``factors`` (a number is the range (-f, f))."""

    def __init__(
        self, keys: Sequence[str] | str, factors: tuple[float, float] | float, prob: float, **kwargs: Any
    ) -> None:
        super().__init__(keys=keys, factors=factors, prob=prob, **kwargs)


class RandGaussianNoised(_EachSample, monai.RandGaussianNoised):
    """Add Gaussian noise, whose standard deviation is drawn from (0, ``std``)."""

    def __init__(self, keys: Sequence[str] | str, prob: float, mean: float, std: float, **kwargs: Any) -> None:
        super().__init__(keys=keys, prob=prob, mean=mean, std=std, **kwargs)


class RandGaussianSmoothd(_EachSample, monai.RandGaussianSmoothd):
    """Blur with random widths; here ``sigma_x`` is of the FIRST spatial axis (Z), ``sigma_z`` of the last (X)."""

    def __init__(
        self,
        keys: Sequence[str] | str,
        prob: float,
        sigma_x: tuple[float, float] | float,
        sigma_y: tuple[float, float] | float,
        sigma_z: tuple[float, float] | float,
        **kwargs: Any,
    ) -> None:
        x, y, z = ((sigma, sigma) if isinstance(sigma, int | float) else sigma for sigma in (sigma_x, sigma_y, sigma_z))
        super().__init__(keys=keys, prob=prob, sigma_x=x, sigma_y=y, sigma_z=z, **kwargs)


class RandFlipd(_EachSample, monai.RandFlipd):
    """Flip along all of ``spatial_axis`` together (0 is Z) with probability ``prob``."""

    def __init__(
        self, keys: Sequence[str] | str, prob: float, spatial_axis: Sequence[int] | int, **kwargs: Any
    ) -> None:
        super().__init__(keys=keys, prob=prob, spatial_axis=spatial_axis, **kwargs)


class RandSpatialCropd(_EachSample, _InsideImage, monai.RandSpatialCropd):
    """Cut out a window of ``roi_size`` at a random place, or in the centre; one larger than the image is refused."""

    def __init__(
        self,
        keys: Sequence[str] | str,
        roi_size: Sequence[int] | int,
        random_center: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys=keys, roi_size=roi_size, random_center=random_center, **kwargs)


class CenterSpatialCropd(_EachSample, monai.CenterSpatialCropd):
    """Cut out the centre; an axis that is shorter than ``roi_size`` stays as it is, as in MONAI."""

    def __init__(self, keys: Sequence[str] | str, roi_size: Sequence[int] | int, **kwargs: Any) -> None:
        super().__init__(keys=keys, roi_size=roi_size, **kwargs)


class ScaleIntensityRangePercentilesd(monai.ScaleIntensityRangePercentilesd):
    """Map the range between two percentiles of the whole array to a given range.

    Parameters
    ----------
    keys : str or iterable of str
        Entries to scale. The percentiles are those of the whole array, batch axis included.
    lower, upper : float
        Percentiles, 0 to 100.
    b_min, b_max : float or None
        What they are mapped to.
    clip, relative, channel_wise : bool, default False
        See MONAI.
    dtype : dtype, optional
        Of the result; that of the input by default.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        lower: float,
        upper: float,
        b_min: float | None,
        b_max: float | None,
        clip: bool = False,
        relative: bool = False,
        channel_wise: bool = False,
        dtype: DTypeLike | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys=keys,
            lower=lower,
            upper=upper,
            b_min=b_min,
            b_max=b_max,
            clip=clip,
            relative=relative,
            channel_wise=channel_wise,
            dtype=dtype,
            allow_missing_keys=allow_missing_keys,
        )


class NormalizeIntensityd(monai.NormalizeIntensityd):
    """Subtract the mean and divide by the standard deviation of the array, or by given values."""

    def __init__(self, keys: Sequence[str] | str, **kwargs: Any) -> None:
        super().__init__(keys=keys, **kwargs)
