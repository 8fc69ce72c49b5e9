"""Normalisation with statistics that were computed before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from monai.transforms import MapTransform
from torch import Tensor

from viscy_transforms._batched import in_float, per_sample

__all__ = ["NormalizeSampled"]

_EPSILON = 1e-8


class NormalizeSampled(MapTransform):
    """Subtract a statistic and divide by another, as the metadata of the sample says.

    Parameters
    ----------
    keys : str or iterable of str
        Channels to normalise.
    level : {"fov_statistics", "dataset_statistics", "timepoint_statistics"}
        Which images the statistics were computed from.
    subtrahend : str, default "mean"
        Statistic to subtract, such as ``mean`` or ``median``.
    divisor : str, default "std"
        Statistic to divide by, such as ``std`` or ``iqr``. Where it is 0 (an empty image) nothing is divided.
    remove_meta : bool, default False
        Whether to leave ``norm_meta`` out of the result.

    Notes
    -----
    A sample carries ``norm_meta[key][level][statistic]``: 0-D for one sample, shape (B,) for a batch, whose statistics
    then belong to the samples one by one. One sample may also carry those of all its frames, as they are stored,
    ``norm_meta[key]["timepoint_statistics"]["0"][statistic]``; ``sample["index"].time`` then says which are taken.

    Examples
    --------
    >>> stats = {"mean": torch.tensor([1.0, 2.0]), "std": torch.tensor([2.0, 4.0])}
    >>> batch = {"ch_0": torch.full((2, 1, 1, 1, 1), 4.0), "norm_meta": {"ch_0": {"fov_statistics": stats}}}
    >>> NormalizeSampled("ch_0", "fov_statistics")(batch)["ch_0"].flatten()
    tensor([1.5000, 0.5000])
    """

    def __init__(
        self,
        keys: str | Iterable[str],
        level: Literal["fov_statistics", "dataset_statistics", "timepoint_statistics"],
        subtrahend: str = "mean",
        divisor: str = "std",
        remove_meta: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys=False)
        self.level, self.subtrahend, self.divisor, self.remove_meta = level, subtrahend, divisor, remove_meta

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Normalise the keys.

        Parameters
        ----------
        sample : dict
            Tensors under ``keys`` and the statistics under ``norm_meta``. Not modified.

        Returns
        -------
        dict
            A new dictionary; floating point tensors keep their dtype, integers become float32.

        Raises
        ------
        KeyError
            If a channel, level or statistic is missing; the message names it and the command that computes it.
        """
        out = dict(sample)
        for key in self.key_iterator(out):
            stats = self._frame(self._level(out.get("norm_meta"), key), key, out.get("index"))
            subtrahend, divisor = (self._statistic(stats, key, name) for name in (self.subtrahend, self.divisor))
            out[key] = self._normalize(out[key], subtrahend, divisor)
        if self.remove_meta:
            out.pop("norm_meta", None)
        return out

    def _level(self, norm_meta: Mapping[str, Any] | None, key: str) -> Mapping[str, Any]:
        for name, held, what in ((key, norm_meta, "channels"), (self.level, (norm_meta or {}).get(key), "levels")):
            if not held or name not in held:
                raise self._missing(key, f"{what} in norm_meta: {', '.join(map(str, held or ())) or 'none'}")
        return norm_meta[key][self.level]

    def _frame(self, stats: Mapping[str, Any], key: str, index: Any) -> Mapping[str, Any]:
        if not stats or not all(isinstance(frame, Mapping) for frame in stats.values()):
            return stats
        time = getattr(index, "time", None)
        if str(time) not in stats:
            raise self._missing(key, f"time {time} of the sample's index is not among {', '.join(map(str, stats))}")
        return stats[str(time)]

    def _statistic(self, stats: Mapping[str, Any], key: str, name: str) -> Tensor:
        if name not in stats:
            raise self._missing(key, f"statistic {name!r} is not among {', '.join(map(str, stats)) or 'none'}")
        return torch.as_tensor(stats[name])

    def _missing(self, key: str, found: str) -> KeyError:
        return KeyError(
            f"no {self.level} for channel {key!r} ({found}); compute normalisation statistics with `viscy preprocess`"
        )

    def _normalize(self, image: Tensor, subtrahend: Tensor, divisor: Tensor) -> Tensor:
        x = in_float(image)
        subtrahend, divisor = (_broadcast(stat, x) for stat in (subtrahend, divisor))
        divisor = torch.where(divisor.abs() > _EPSILON, divisor + _EPSILON, 1)
        out = (x - subtrahend).div_(divisor)
        return out.to(image.dtype) if image.is_floating_point() else out


def _broadcast(statistic: Tensor, x: Tensor) -> Tensor:
    if statistic.ndim and statistic.shape != x.shape[:1]:
        raise ValueError(f"found statistics of shape {tuple(statistic.shape)}, expected one per sample of {x.shape[0]}")
    return per_sample(statistic.to(x.device, x.dtype, non_blocking=True), x)
