"""Which frames of cut-out tracks make a triplet: the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from viscy_data.batches.samples import Sample, SampleDataset, draw_seed
from viscy_data.batches.sources import digest_sources
from viscy_data.cell_division_triplet.npy_tracks import NpyTracks, channel_number
from viscy_data.channels import center_crop
from viscy_data.errors import InputError, raise_all
from viscy_data.triplet.pairs import TrackPairs
from viscy_data.typing import DictTransform

__all__ = ["CellDivisionTripletDataset"]


class CellDivisionTripletDataset(SampleDataset):
    """Triplets of cut-out tracks, each patch transformed on its own.

    ``dataset[i]`` is a sample, ``dataset[[i, j]]`` a batch: ``anchor``, ``positive`` and ``negative`` (C, 1, Y, X)
    float32, in a batch (B, C, 1, Y, X); without ``fit`` the anchor and its ``index``: ``fov_name`` (the name of the
    file) and ``id`` (the frame).

    Parameters
    ----------
    data_paths : sequence of Path
        NPY files of shape (T, C, Y, X), one per track.
    channel_names : sequence of str
        ``bf``, ``h2b`` or numbers, see :func:`channel_number`; also the keys that the transforms see.
    anchor_transform, positive_transform, negative_transform : callable, optional
        Take and return a mapping of channel name to (1, 1, Y, X). Random ones of MONAI are seeded by ``seed``, epoch
        and position.
    fit : bool, default True
        Triplets; otherwise every frame of every track once.
    time_interval : int or "any", default "any"
        Frames from anchor to positive and negative. With "any" the positive is the anchor and the negative any frame
        of another track. Where no other track is as long as that, the negative comes from any frame as well.
    return_negative : bool, default True
        Read negatives as well.
    output_2d : bool, default False
        Leave the axis of slices out: (C, Y, X).
    final_yx_patch_size : tuple of int, optional
        Height and width of the central part that is kept after the transforms; all by default.
    seed : int, default 0
        Of negatives and transforms.

    Attributes
    ----------
    tracks : NpyTracks

    Raises
    ------
    InputError
        For files that are no tracks, unknown channels, and where there is no triplet.
    """

    def __init__(
        self,
        data_paths: Sequence[Path],
        channel_names: Sequence[str],
        anchor_transform: DictTransform | None = None,
        positive_transform: DictTransform | None = None,
        negative_transform: DictTransform | None = None,
        fit: bool = True,
        time_interval: Literal["any"] | int = "any",
        return_negative: bool = True,
        output_2d: bool = False,
        *,
        final_yx_patch_size: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        self.fit, self.time_interval, self.return_negative = fit, time_interval, return_negative
        self.output_2d, self.final_yx_patch_size = output_2d, final_yx_patch_size
        self.channel_names = list(channel_names)
        self._channels = [channel_number(name) for name in self.channel_names]
        self.tracks = NpyTracks(data_paths)
        raise_all(self.tracks.lacking(max(self._channels, default=0) + 1))
        self._transforms = {
            "anchor": deepcopy(anchor_transform),
            "positive": deepcopy(positive_transform),
            "negative": deepcopy(negative_transform),
        }
        lengths = np.array([fov.shape[0] for fov in self.tracks.fovs], np.int64)
        self._track = np.repeat(np.arange(len(lengths)), lengths)
        self._t = np.arange(len(self._track)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        self._pairs = TrackPairs(self._track, self._t, time_interval)
        self._any_frame = TrackPairs(self._track, self._t, "any")
        self._anchors = self._find_anchors()

    def __len__(self) -> int:
        return len(self._anchors)

    def patches(self, position: int, epoch: int = 0) -> list[Sample]:
        """Return the sample of a position, alone in a list."""
        rng = np.random.default_rng(draw_seed(self.seed, epoch, position))
        anchor = self._anchors[[position]]
        sample = {"anchor": self._patch("anchor", anchor[0], rng)}
        if not self.fit:
            name = self.tracks.fovs[self._track[anchor[0]]].name
            return [sample | {"index": {"fov_name": name, "id": int(self._t[anchor[0]])}}]
        sample["positive"] = self._patch("positive", self._pairs.positives(anchor)[0], rng)
        if self.return_negative:
            pairs = self._pairs if self._pairs.count_negatives(anchor)[0] else self._any_frame
            sample["negative"] = self._patch("negative", pairs.draw_negatives(anchor, rng)[0], rng)
        return [sample]

    def item(self, patches: list[Sample]) -> Sample:
        """Return the sample itself."""
        return patches[0]

    def source_digests(self) -> list[dict[str, Any]]:
        """Say which frames of which files there are."""
        names = [self.channel_names] * len(self.tracks.fovs)
        return digest_sources(self.tracks.fovs, names, self._track[self._anchors], [self._t[self._anchors]])

    def _find_anchors(self) -> np.ndarray:
        """Choose the frames that can be asked for."""
        rows = np.arange(len(self._track))
        if not self.fit:
            return rows
        where = self.tracks.fovs[0].store if self.tracks.fovs else "data_paths"
        rows = rows[self._pairs.positives(rows) >= 0]
        if not len(rows):
            expected = f"a track with two frames {self.time_interval} apart"
            raise InputError(where, field="time_interval", found=f"{self.time_interval!r}", expected=expected)
        if self.return_negative and len(self.tracks.fovs) < 2:
            raise InputError(
                where,
                found="a single track to train or to validate with",
                expected="another one for negatives",
                fix="add tracks, choose another split_ratio, or set return_negative: false",
            )
        return rows

    def _patch(self, role: str, row: int, rng: np.random.Generator) -> Tensor:
        """Read a frame and transform it; every call draws one number, whether it is used or not."""
        seed, transform = int(rng.integers(2**32)), self._transforms[role]
        image = self.tracks.read(self._track[row], self._t[row], self._channels)
        if transform is not None:
            if hasattr(transform, "set_random_state"):  # one of MONAI, which workers without do not import
                transform.set_random_state(seed=seed)
            channels = transform(dict(zip(self.channel_names, image.split(1), strict=True)))
            image = torch.cat([torch.as_tensor(channels[name]).as_subclass(Tensor) for name in self.channel_names])
        if self.final_yx_patch_size is not None:
            image = center_crop(image, self.final_yx_patch_size)
        return image.squeeze(1) if self.output_2d else image
