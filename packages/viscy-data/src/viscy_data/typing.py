"""The words of a batch: keys, column names and their types, defined once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, NotRequired, Protocol, TypedDict, TypeVar

from torch import ShortTensor, Tensor

__all__ = [
    "INDEX_COLUMNS",
    "ROLES",
    "AnnotationColumns",
    "ChannelMap",
    "ChannelNormStats",
    "DictTransform",
    "HCSStackIndex",
    "LevelNormStats",
    "NormMeta",
    "OneOrSeq",
    "PredictResumable",
    "Sample",
    "SegmentationSample",
    "TrackingIndex",
    "TripletSample",
]

T = TypeVar("T")
OneOrSeq = T | Sequence[T]
DictTransform = Callable[[dict[str, Tensor | dict]], dict[str, Tensor]]
AnnotationColumns = Literal["infection_state", "cell_division_state", "cell_remodeling_state", "cell_cycle_state"]

INDEX_COLUMNS = ["fov_name", "track_id", "t", "id", "parent_track_id", "parent_id", "z", "y", "x"]
"""Columns of a tracking index record, in order."""

ROLES = ("anchor", "positive", "negative")
"""Keys of the images of a batch; their place in this order is part of the seed of each."""


class LevelNormStats(TypedDict):
    """Statistics of one channel at one level: float32, 0-D for a sample, (B,) for a batch."""

    mean: Tensor
    std: Tensor
    median: Tensor
    iqr: Tensor


class ChannelNormStats(TypedDict):
    """Levels of one channel, as stored under the attribute ``normalization``."""

    dataset_statistics: LevelNormStats
    fov_statistics: LevelNormStats
    timepoint_statistics: NotRequired[LevelNormStats]


NormMeta = dict[str, ChannelNormStats]


class HCSStackIndex(NamedTuple):
    """Where a stack comes from: array path such as ``/A/1/0/0``, time index, first z index."""

    image: str
    time: int
    z: int


class Sample(TypedDict, total=False):
    """One sample or batch of a data module for images; all keys are optional."""

    index: HCSStackIndex
    source: OneOrSeq[Tensor]
    target: OneOrSeq[Tensor]
    weight: OneOrSeq[Tensor]
    labels: OneOrSeq[Tensor]
    norm_meta: NormMeta | None


class SegmentationSample(TypedDict):
    """Predicted and target labels, int16, with where they come from."""

    pred: ShortTensor
    target: ShortTensor
    position_idx: OneOrSeq[int]
    time_idx: OneOrSeq[int]


class ChannelMap(TypedDict):
    """Channel names per role."""

    source: OneOrSeq[str]
    target: NotRequired[OneOrSeq[str]]


class TrackingIndex(TypedDict):
    """Which observation a prediction belongs to."""

    fov_name: OneOrSeq[str]
    id: OneOrSeq[int]


class TripletSample(TypedDict):
    """A batch for contrastive training.

    Image tensors are (B, C, Z, Y, X) float32. ``*_norm_meta`` is one mapping per sample until the data module has
    collated it. ``lineage`` is (B,) int64: equal numbers are one lineage, unique across experiments. ``rng_seed`` is
    derived from the seed and the observations of the batch and drives everything random that happens to it later.
    """

    anchor: Tensor
    positive: NotRequired[Tensor]
    negative: NotRequired[Tensor]
    anchor_norm_meta: NotRequired[Any]
    positive_norm_meta: NotRequired[Any]
    negative_norm_meta: NotRequired[Any]
    lineage: NotRequired[Tensor]
    channel_mask: NotRequired[Tensor]
    rng_seed: NotRequired[int]
    index: NotRequired[TrackingIndex]


class PredictResumable(Protocol):
    """A data module whose prediction can leave out what an earlier, interrupted run has written."""

    def skip_predicted(self, n_samples: int) -> None:
        """Begin this rank's prediction after its first ``n_samples`` samples."""
