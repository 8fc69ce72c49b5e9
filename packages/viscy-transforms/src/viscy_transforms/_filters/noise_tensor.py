"""MONAI's Gaussian noise, drawn where the image is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from monai.transforms import RandGaussianNoise, RandGaussianNoised, RandomizableTransform
from numpy.typing import DTypeLike
from torch import Tensor

__all__ = ["RandGaussianNoiseTensor", "RandGaussianNoiseTensord"]


class RandGaussianNoiseTensor(RandGaussianNoise):
    """Add Gaussian noise to one image, drawn by torch on the device of the image.

    Parameters
    ----------
    prob : float, default 0.1
        Probability of the image to get noise.
    mean, std : float, default 0.0 and 0.1
        Of the noise.
    dtype : dtype, optional
        Of the result; that of the input by default.
    sample_std : bool, default True
        Whether the standard deviation is drawn from (0, ``std``).
    """

    def __init__(
        self,
        prob: float = 0.1,
        mean: float = 0.0,
        std: float = 0.1,
        dtype: DTypeLike = None,
        sample_std: bool = True,
    ) -> None:
        super().__init__(prob, mean, std, dtype, sample_std)

    def randomize(self, img: Tensor, mean: float | None = None) -> None:
        """Draw whether there is noise, how strong it is, and the noise."""
        RandomizableTransform.randomize(self, None)
        if not self._do_transform:
            return
        std = self.R.uniform(0, self.std) if self.sample_std else self.std
        generator = torch.Generator(img.device).manual_seed(int(self.R.randint(2**31)))
        noise = torch.randn(img.shape, generator=generator, device=img.device)
        self.noise = noise.mul_(std).add_(self.mean if mean is None else mean)


class RandGaussianNoiseTensord(RandGaussianNoised):
    """Dictionary form of :class:`RandGaussianNoiseTensor`: one noise for all keys.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of one shape.
    prob, mean, std, dtype
        See :class:`RandGaussianNoiseTensor`.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    sample_std : bool, default True
        Whether the standard deviation is drawn from (0, ``std``).
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        prob: float = 0.1,
        mean: float = 0.0,
        std: float = 0.1,
        dtype: DTypeLike = None,
        allow_missing_keys: bool = False,
        sample_std: bool = True,
    ) -> None:
        super().__init__(keys, prob, mean, std, dtype, allow_missing_keys, sample_std)
        self.rand_gaussian_noise = RandGaussianNoiseTensor(1.0, mean, std, dtype, sample_std)
