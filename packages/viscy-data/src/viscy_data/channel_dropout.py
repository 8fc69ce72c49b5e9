"""Channel dropout: hide whole channels of a sample so that the others learn to carry its signal.

>>> import torch
>>> dropout = ChannelDropout([1], p=1.0)
>>> dropout(torch.ones(1, 2, 2))[0].tolist()
[[1.0, 1.0], [0.0, 0.0]]
>>> dropout.eval()(torch.ones(1, 2, 2))[0].tolist()
[[1.0, 1.0], [1.0, 1.0]]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ChannelDropout"]


class ChannelDropout(nn.Module):
    """Replace listed channels by a constant, each channel of each sample independently, in training only.

    A sample never loses all of its channels: when every channel with content would go, one of the listed ones, drawn
    uniformly, stays.

    Parameters
    ----------
    channels : sequence of int
        Positions of the channels that may be dropped.
    p : float, default 0.5
        Probability that one channel of one sample is dropped, in [0, 1].
    fill : float, default 0.0
        Value of a dropped channel. Zero is the mean of a z-scored image and the dark level of a raw one: apply the
        dropout after normalisation, or give the value that means "nothing" in the images at hand.

    Raises
    ------
    ValueError
        If ``p`` lies outside [0, 1], or a channel is negative or listed twice.
    """

    def __init__(self, channels: Sequence[int], p: float = 0.5, *, fill: float = 0.0) -> None:
        super().__init__()
        self.channels = [int(channel) for channel in channels]
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"ChannelDropout: p must lie in [0, 1], found {p}.")
        if any(channel < 0 for channel in self.channels) or len(set(self.channels)) < len(self.channels):
            raise ValueError(
                f"ChannelDropout: channels must be distinct positions counted from 0, found {self.channels}."
            )
        self.p = float(p)
        self.fill = float(fill)

    def forward(self, x: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None) -> Tensor:
        """Drop channels of a batch.

        Parameters
        ----------
        x : Tensor, shape (B, C, ...)
            Images; not modified.
        generator : torch.Generator, optional
            Source of the draws, on the device of ``x``; torch's global one by default.
        mask : Tensor of bool, shape (B, C), optional
            Which channels have content; all by default. The channel that stays is always one with content.

        Returns
        -------
        Tensor, shape (B, C, ...)
            ``x`` itself in evaluation mode or when nothing can be dropped, otherwise a copy.

        Raises
        ------
        ValueError
            If a listed channel does not exist in ``x``.
        """
        if self.channels and max(self.channels) >= x.shape[1]:
            raise ValueError(
                f"ChannelDropout: channel {max(self.channels)} does not exist, the images have {x.shape[1]}."
            )
        if not self.training or self.p == 0.0 or not self.channels:
            return x
        dropped = self._draw(x, generator, mask)
        return torch.where(dropped.reshape(*dropped.shape, *[1] * (x.ndim - 2)), self.fill, x)

    def _draw(self, x: Tensor, generator: torch.Generator | None, mask: Tensor | None) -> Tensor:
        """Choose what to drop, (B, C), by arithmetic alone: a choice by index would wait for the device."""
        n_channels = x.shape[1]
        draws = {channel: torch.rand(len(x), generator=generator, device=x.device) for channel in self.channels}
        never = torch.full((len(x),), 2.0, device=x.device)
        drawn = torch.stack([draws.get(channel, never) for channel in range(n_channels)], dim=1)
        present = torch.ones_like(drawn, dtype=torch.bool) if mask is None else mask.to(x.device, torch.bool)
        dropped = drawn < self.p
        # The draws are independent and identical, so the largest is a uniform choice among the listed channels.
        candidates = torch.where(present & (drawn <= 1), drawn, -1.0)
        kept = torch.arange(n_channels, device=x.device) == candidates.argmax(dim=1, keepdim=True)
        emptied = ~(present & ~dropped).any(dim=1) & (candidates >= 0).any(dim=1)
        return dropped & ~(emptied[:, None] & kept)

    def extra_repr(self) -> str:
        """Say what is dropped, for ``print(model)``."""
        return f"channels={self.channels}, p={self.p}, fill={self.fill}"
