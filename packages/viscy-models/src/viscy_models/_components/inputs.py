"""Check of a model's input, before a convolution fails in words of its own."""

from __future__ import annotations

from torch import Tensor

__all__ = ["require_stack"]


def require_stack(x: Tensor, channels: int, depths: tuple[int, ...], multiples: tuple[int, int] = (1, 1)) -> None:
    """Refuse an image of another shape.

    Parameters
    ----------
    x : Tensor
        The input of a model.
    channels : int
        Channels that the model was made for.
    depths : tuple of int
        Numbers of z slices that it takes.
    multiples : tuple of int, default (1, 1)
        What Y and X must be multiples of, so that every halving of the resolution comes out even.

    Raises
    ------
    ValueError
        With the shape found and the one expected.

    Notes
    -----
    Only sizes are compared, so that compiling and exporting a model are not disturbed.
    """
    fits = x.ndim == 5 and x.shape[1] == channels and x.shape[2] in depths
    if not fits or x.shape[3] % multiples[0] or x.shape[4] % multiples[1]:
        sizes = ""
        if multiples != (1, 1):
            sizes = f" with Y a multiple of {multiples[0]} and X a multiple of {multiples[1]}"
        raise ValueError(
            f"found an input of shape {tuple(x.shape)}, expected (B, {channels} channels, "
            f"{' or '.join(map(str, depths))} z slices, Y, X){sizes}"
        )
