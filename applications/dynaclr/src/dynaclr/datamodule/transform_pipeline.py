"""What happens to a batch between its transfer to the device and the model.

Normalise, augment, crop to the size the model sees, hide channels: in this order, on whole batches. Everything random
comes from the seed that the batch carries, so that a batch is the same whoever prepares it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, MapTransform
from torch import Tensor

from viscy_data.channel_dropout import ChannelDropout
from viscy_data.channels import center_crop, transform_channelwise
from viscy_data.norm_meta import collate_norm_meta

__all__ = ["ROLES", "TransformPipeline", "collate_statistics"]

ROLES = ("anchor", "positive", "negative")
"""Keys of the images of a batch; their place in this order is part of the seed of each."""


def collate_statistics(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the statistics of single samples by those of the batch, so that few and large tensors are moved."""
    collated = dict(batch)
    for role in ROLES:
        samples = collated.get(f"{role}_norm_meta")
        if isinstance(samples, Sequence):
            collated[f"{role}_norm_meta"] = collate_norm_meta(samples)
    return collated


class TransformPipeline:
    """Prepare batches for the model.

    The views of a cell are augmented independently of each other, and channels are hidden in each independently: the
    network is to recognise a cell by its label-free channel even when only the other view shows the reporter. A view
    never loses all of its channels.

    Parameters
    ----------
    keys : sequence of str
        Names of the channels by position, which the transforms use.
    normalizations, augmentations : sequence of MapTransform
        Dictionary transforms on batches, (B, 1, Z, Y, X) per key. Augmentations are left out unless training.
    final_size : tuple of int
        (Z, Y, X) of the central part that remains.
    channel_dropout : ChannelDropout, optional
        Applied in training only, to normalised images.
    """

    def __init__(
        self,
        keys: Sequence[str],
        normalizations: Sequence[MapTransform] = (),
        augmentations: Sequence[MapTransform] = (),
        final_size: tuple[int, int, int] = (1, 1, 1),
        channel_dropout: ChannelDropout | None = None,
    ) -> None:
        self.keys, self.final_size = list(keys), tuple(final_size)
        self._plain = Compose(list(normalizations))
        self._augmented = Compose([*normalizations, *augmentations])
        self._dropout = channel_dropout

    def __call__(self, batch: Mapping[str, Any], *, training: bool) -> dict[str, Any]:
        """Prepare the images of a batch.

        Parameters
        ----------
        batch : mapping
            With (B, C, Z, Y, X) images under some of :data:`ROLES`; as the dataset makes it.
        training : bool
            Whether to augment and to hide channels.

        Returns
        -------
        dict
            Images contiguous and float32 (or of the wider or narrower floating point type that they came in), without
            the keys ``*_norm_meta``. The input is not modified.
        """
        batch = collate_statistics(batch)
        statistics = {role: batch.pop(f"{role}_norm_meta", None) for role in ROLES}
        mask, seed = batch.get("channel_mask"), batch.get("rng_seed")
        for number, role in enumerate(ROLES):
            if isinstance(batch.get(role), Tensor):
                own_seed = None if seed is None else np.random.SeedSequence([int(seed), number])
                batch[role] = self._prepare(batch[role], statistics[role], mask, own_seed, training)
        return batch

    def _prepare(
        self,
        images: Tensor,
        statistics: Mapping[str, Any] | None,
        mask: Tensor | None,
        seed: np.random.SeedSequence | None,
        training: bool,
    ) -> Tensor:
        dtype = images.dtype if images.is_floating_point() else torch.float32
        images = images.to(torch.promote_types(dtype, torch.float32))
        transform = self._augmented if training else self._plain
        generator = None
        if seed is not None:
            transform_seed, dropout_seed = seed.generate_state(2).tolist()
            transform.set_random_state(seed=transform_seed)
            generator = torch.Generator(images.device).manual_seed(dropout_seed)
        if transform.transforms:
            # MONAI's transforms may hand back a subclass that carries metadata.
            images = transform_channelwise(transform, self.keys, images, statistics).as_subclass(Tensor)
        images = center_crop(images, self.final_size)
        if mask is not None:  # what an experiment lacks stays a plane of zeros, whatever the transforms made of it
            images = images * mask.to(images.device)[:, :, None, None, None]
        if training and self._dropout is not None:
            images = self._dropout.train()(images, generator, mask)
        return images.to(dtype).contiguous()
