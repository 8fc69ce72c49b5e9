"""Channels side by side become channels of one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.transforms import MapTransform

from viscy_transforms.typing import ChannelMap, Sample

__all__ = ["StackChannelsd"]

_CHANNEL_AXIS = -4


class StackChannelsd(MapTransform):
    """Concatenate entries along their channel axis.

    Parameters
    ----------
    channel_map : dict
        From the key of the result to the keys that make it, or to one key.

    Examples
    --------
    >>> sample = {name: torch.zeros(1, 5, 8, 8) for name in ("phase", "nuclei", "membrane")}
    >>> out = StackChannelsd({"source": "phase", "target": ["nuclei", "membrane"]})(sample)
    >>> out["source"].shape, out["target"].shape
    (torch.Size([1, 5, 8, 8]), torch.Size([2, 5, 8, 8]))
    """

    def __init__(self, channel_map: ChannelMap) -> None:
        self.channel_map: dict[str, Sequence[str]] = {
            key: (names,) if isinstance(names, str) else tuple(names) for key, names in channel_map.items()
        }
        super().__init__([name for names in self.channel_map.values() for name in names])

    def __call__(self, sample: Sample) -> Sample:
        """Return a new dictionary with only the keys of the map, from (1, Z, Y, X) or (B, 1, Z, Y, X).

        Raises
        ------
        KeyError
            If a channel is missing.
        """
        list(self.key_iterator(sample))  # raises for a channel that is not there
        return {
            key: torch.cat([sample[name] for name in names], dim=_CHANNEL_AXIS)
            for key, names in self.channel_map.items()
        }
