"""Label images as the input and the target of an autoencoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

__all__ = ["NetworkInput", "label_map"]

_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


def label_map(images: Tensor, num_classes: int) -> Tensor:
    """Return the classes of label images.

    Parameters
    ----------
    images : Tensor, shape (B, 1, Z, Y, X) or (B, K, Z, Y, X)
        Whole numbers from 0 to K - 1 of any type, or one channel per class.
    num_classes : int
        K.

    Returns
    -------
    Tensor, shape (B, Z, Y, X), int64

    Raises
    ------
    ValueError
        For another number of channels, and for values that are no classes.
    """
    if images.shape[1] == num_classes:
        return images.argmax(dim=1)
    if images.shape[1] != 1:
        raise ValueError(
            f"anchor: found {images.shape[1]} channels, expected a label image with one, or one per class "
            f"({num_classes})"
        )
    labels = images[:, 0].long()
    if not torch.equal(labels.to(images.dtype), images[:, 0]):
        raise ValueError(
            "anchor: found values that are not whole numbers, expected a label image; leave out normalisation and "
            "interpolation, or num_classes"
        )
    low, high = labels.min().item(), labels.max().item()
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"anchor: found label {low if low < 0 else high}, expected 0 to {num_classes - 1} (num_classes)"
        )
    return labels


@dataclass(frozen=True)
class NetworkInput:
    """What a network takes, as its first convolution tells.

    Parameters
    ----------
    in_channels, spatial_dims : int, optional
        None where a network has no convolution: it takes everything.
    """

    in_channels: int | None
    spatial_dims: int | None

    @classmethod
    def of(cls, network: nn.Module) -> NetworkInput:
        """Look at a network."""
        first = next((module for module in network.modules() if isinstance(module, tuple(_CONVOLUTIONS))), None)
        if first is None:
            return cls(None, None)
        return cls(first.in_channels, next(dims for kind, dims in _CONVOLUTIONS.items() if isinstance(first, kind)))

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Give images the form that the network takes.

        Parameters
        ----------
        images : Tensor, shape (B, C, Z, Y, X)
        labels : Tensor, shape (B, Z, Y, X), int64, optional
            The classes of label images: a network with one input channel gets these, and one with K channels gets one
            channel per class.

        Returns
        -------
        Tensor, of the type of `images`, or float32 for integers
            (B, C, Y, X) for a network of flat images.
        """
        dtype = images.dtype if images.is_floating_point() else torch.float32
        if labels is not None and self.in_channels is not None:
            one_channel = self.in_channels == 1
            images = labels[:, None] if one_channel else torch.movedim(one_hot(labels, self.in_channels), -1, 1)
        if images.ndim == 5 and self.spatial_dims == 2:
            if images.shape[2] != 1:
                raise ValueError(f"anchor: found {images.shape[2]} z slices, expected one, as the model is 2D")
            images = images[:, :, 0]
        return images.to(dtype)
