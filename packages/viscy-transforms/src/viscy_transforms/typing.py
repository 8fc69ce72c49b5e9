"""Types of the dictionaries that transforms take and give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NotRequired, TypeAlias, TypedDict, TypeVar

from torch import Tensor

__all__ = ["ChannelMap", "ChannelNormStats", "HCSStackIndex", "LevelNormStats", "NormMeta", "OneOrSeq", "Sample"]

T = TypeVar("T")
OneOrSeq: TypeAlias = T | Sequence[T]


class LevelNormStats(TypedDict, total=False):
    """Statistics of one channel at one level: 0-D for a sample, shape (B,) for a batch."""

    mean: Tensor
    std: Tensor
    median: Tensor
    iqr: Tensor


class ChannelNormStats(TypedDict, total=False):
    """Statistics of one channel."""

    dataset_statistics: LevelNormStats
    fov_statistics: LevelNormStats
    timepoint_statistics: LevelNormStats


NormMeta: TypeAlias = dict[str, ChannelNormStats]


class HCSStackIndex(NamedTuple):
    """Where a stack comes from."""

    image: str
    time: int
    z: int


class Sample(TypedDict, total=False):
    """A sample of image translation."""

    index: HCSStackIndex
    source: OneOrSeq[Tensor]
    target: OneOrSeq[Tensor]
    weight: OneOrSeq[Tensor]
    labels: OneOrSeq[Tensor]
    norm_meta: NormMeta | None


class ChannelMap(TypedDict):
    """Which channels are stacked into which key."""

    source: OneOrSeq[str]
    target: NotRequired[OneOrSeq[str]]
