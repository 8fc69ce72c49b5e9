"""Measures of a patch: radial profiles, spectrum, grey-level co-occurrence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["co_occurrence", "radial_slope", "rescaled", "spectral_entropy"]

_FLOOR = 1e-10


def rescaled(image: NDArray) -> NDArray[np.float64]:
    """Rescale an image to 0 to 1; a constant one becomes 0."""
    image = np.asarray(image, dtype=np.float64)
    spread = np.ptp(image)
    return (image - image.min()) / spread if spread else np.zeros_like(image)


def spectral_entropy(image: NDArray) -> float:
    r"""Entropy of the power spectrum, :math:`-\sum p \ln p` with p the normalised :math:`|FFT|^2 + 10^{-10}`."""
    power = np.abs(np.fft.fft2(image)) ** 2 + _FLOOR
    shares = power / power.sum()
    return float(-np.sum(shares * np.log(shares)))


def radial_slope(values: NDArray, center: tuple[float, float], n_radii: int | None = None) -> float:
    """Slope of a straight line through the mean of the values at each whole distance from a centre.

    Parameters
    ----------
    values : ndarray, shape (Y, X)
    center : tuple of float
        Y and X in pixels.
    n_radii : int, optional
        Distances below this; by default all.

    Returns
    -------
    float
        Per pixel; 0 with fewer than two distances.
    """
    y, x = np.indices(values.shape)
    radii = np.hypot(y - center[0], x - center[1]).astype(np.int64)
    sums, counts = np.bincount(radii.ravel(), values.ravel()), np.bincount(radii.ravel())
    present = np.flatnonzero(counts)
    present = present if n_radii is None else present[present < n_radii]
    if len(present) < 2:
        return 0.0
    return float(np.polyfit(present, sums[present] / counts[present], 1)[0])


def co_occurrence(levels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shares of the pairs of grey levels of diagonal neighbours, one below and to the right, counted both ways round.

    Returns
    -------
    ndarray of float64, shape (256, 256)
        Symmetric, sums to 1; zeros for an image of one row or column.
    """
    upper, lower = (part.ravel().astype(np.int64) for part in (levels[:-1, :-1], levels[1:, 1:]))
    counts = np.bincount(upper * 256 + lower, minlength=256**2).reshape(256, 256)
    both = (counts + counts.T).astype(np.float64)
    return both / max(both.sum(), 1)
