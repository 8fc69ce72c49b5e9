"""Random sharpening."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from viscy_transforms._batched import BatchedRandom, BatchedRandomd, as_range, per_sample

__all__ = ["BatchedRandSharpend"]


class BatchedRandSharpend(BatchedRandomd):
    """Subtract a random share of the Laplacian from every sample; all keys of a sample get the same share.

    Parameters
    ----------
    keys : str or iterable of str
        Entries of shape (B, C, Z, Y, X) with any number of channels.
    alpha_range : pair, default (0.1, 0.5)
        Range of the share a in ``x + a * (2 n x - sum of the 2 n neighbours)``, where n counts the axes longer than one
        pixel. Outside of the image is 0.
    prob : float, default 0.1
        Probability of each sample to be sharpened.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        alpha_range: tuple[float, float] = (0.1, 0.5),
        prob: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, _Sharpen(alpha_range, prob), allow_missing_keys)


class _Sharpen(BatchedRandom):
    block_bytes = 2 << 20  # what is sharpened and the shares of it are read over and over

    def __init__(self, alpha_range: tuple[float, float], prob: float) -> None:
        super().__init__(prob)
        self.alpha_range = as_range("alpha_range", alpha_range)

    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        return (self._uniform(data.shape[0], *self.alpha_range),)

    def _transform(self, data: Tensor, alpha: Tensor) -> Tensor:
        share = per_sample(alpha, data) * data
        axes = [axis for axis in range(2, data.ndim) if data.shape[axis] > 1]
        out = data + 2 * len(axes) * share
        for axis in axes:
            inner = data.shape[axis] - 1
            out.narrow(axis, 1, inner).sub_(share.narrow(axis, 0, inner))
            out.narrow(axis, 0, inner).sub_(share.narrow(axis, 1, inner))
        return out
