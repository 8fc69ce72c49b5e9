"""What happens to a batch between its transfer to the device and the model.

Normalise, augment, crop to the size the model sees, hide channels: in this order, on whole batches. Everything random
comes from the seed that the batch carries, so that a batch is the same whoever prepares it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from viscy_data.channel_dropout import ChannelDropout
from viscy_data.channels import center_crop, transform_channelwise
from viscy_data.norm_meta import collate_norm_meta
from viscy_data.typing import ROLES

if TYPE_CHECKING:
    from monai.transforms import MapTransform

__all__ = ["ROLES", "TransformPipeline", "collate_statistics"]


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
        Dictionary transforms on batches, (B, 1, Z, Y, X) per key. Augmentations are left out unless asked for.
    final_size : tuple of int
        (Z, Y, X) that remains: where the batch says so (``<role>_cut``), else the central part.
    channel_dropout : ChannelDropout, optional
        Applied in training only, to normalised images.
    never_augmented : sequence of str, default ()
        Roles that are left as they are.
    """

    def __init__(
        self,
        keys: Sequence[str],
        normalizations: Sequence[MapTransform] = (),
        augmentations: Sequence[MapTransform] = (),
        final_size: tuple[int, int, int] = (1, 1, 1),
        channel_dropout: ChannelDropout | None = None,
        never_augmented: Sequence[str] = (),
    ) -> None:
        from monai.transforms import Compose

        self.keys, self.final_size = list(keys), tuple(final_size)
        self._plain = Compose(list(normalizations))
        self._augmented = Compose([*normalizations, *augmentations])
        self._dropout, self._never_augmented = channel_dropout, frozenset(never_augmented)

    def __call__(self, batch: Mapping[str, Any], *, training: bool, augment: bool | None = None) -> dict[str, Any]:
        """Prepare the images of a batch.

        Parameters
        ----------
        batch : mapping
            With (B, C, Z, Y, X) images under some of :data:`ROLES`; as the dataset makes it.
        training : bool
            Whether to hide channels.
        augment : bool, optional
            Whether to augment; in training by default.

        Returns
        -------
        dict
            Images contiguous and float32 (or of the wider or narrower floating point type that they came in), without
            the keys ``*_norm_meta``, ``*_cut`` and ``rng_seed``. The input is not modified.
        """
        augment = training if augment is None else augment
        batch = collate_statistics(batch)
        statistics = {role: batch.pop(f"{role}_norm_meta", None) for role in ROLES}
        cuts = {role: batch.pop(f"{role}_cut", None) for role in ROLES}
        mask, seed = batch.get("channel_mask"), batch.pop("rng_seed", None)
        for number, role in enumerate(ROLES):
            if not isinstance(batch.get(role), Tensor):
                continue
            transform = self._augmented if augment and role not in self._never_augmented else self._plain
            generator = None
            if seed is not None:
                own_seed = np.random.SeedSequence([int(seed), number])
                transform_seed, dropout_seed = own_seed.generate_state(2).tolist()
                transform.set_random_state(seed=transform_seed)
                generator = torch.Generator(batch[role].device).manual_seed(dropout_seed)
            dtype = batch[role].dtype if batch[role].is_floating_point() else torch.float32
            images = batch[role].to(torch.promote_types(dtype, torch.float32))
            if transform.transforms:
                # MONAI's transforms may hand back a subclass that carries metadata.
                images = transform_channelwise(transform, self.keys, images, statistics[role]).as_subclass(Tensor)
            read_size = batch[role].shape[2:]
            images = self._cut(images, None if images.shape[2:] != read_size else cuts[role])
            # What an experiment lacks stays a plane of zeros, whatever the transforms made of it.
            if mask is not None and not _all_there(mask):
                images = images * mask.to(images.device)[:, :, None, None, None]
            if training and self._dropout is not None:
                images = self._dropout.train()(images, generator, mask)
            batch[role] = images.to(dtype).contiguous()
        return batch

    def _cut(self, images: Tensor, first: np.ndarray | None) -> Tensor:
        """Cut the final patches out; ``first`` says where, (B, 2), unless transforms have changed the size."""
        if first is None or (first == np.array(images.shape[3:]) // 2 - np.array(self.final_size[1:]) // 2).all():
            return center_crop(images, self.final_size)
        stack = center_crop(images, (self.final_size[0], *images.shape[3:]))
        every_cut = stack.unfold(3, self.final_size[1], 1).unfold(4, self.final_size[2], 1)  # a view
        # Built on the host and copied over: nothing here waits for the device. One number per cut, not one per pixel:
        # then an index copies line by line.
        chosen = (np.arange(len(first)), *np.ascontiguousarray(first.T))
        rows, y, x = (torch.from_numpy(each).to(images.device, non_blocking=True) for each in chosen)
        return every_cut[rows, :, :, y, x]


def _all_there(mask: Tensor) -> bool:
    """Tell whether nothing is masked, where asking does not wait for a device."""
    return mask.device.type == "cpu" and bool(mask.all())
