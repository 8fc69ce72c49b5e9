"""Normalisation statistics: where they are stored, and how samples and batches carry them.

A store keeps them in the attribute ``normalization`` of the plate and of every FOV::

    {channel: {"dataset_statistics": S, "fov_statistics": S, "timepoint_statistics": {"0": S, ...}}}

with S mapping names (``mean``, ``std``, ``median``, ``iqr``, percentiles) to floats. For a store that cannot be written
the same content is in a sidecar file beside it, ``<store>.normalization.json``:
``{"plate": {...}, "fovs": {"A/1/0": {...}}}``.

Channel names differ between experiments, so samples carry the statistics by channel *position* (``ch_0``, ``ch_1``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from viscy_data._documents import open_documents
from viscy_data.channels import channel_keys
from viscy_data.errors import InputError, MissingInputError
from viscy_data.stores import FovKey, canonical_store, read_attributes

__all__ = ["NormStatistics", "collate_norm_meta", "read_norm_meta", "sidecar_path"]

_LEVELS = ("dataset_statistics", "fov_statistics")
_TIMEPOINTS = "timepoint_statistics"
_READ_THREADS = 16
_CACHED_FRAMES = 4096  # a few MB; a FOV's own level objects are kept for good
# What leaves a plane of zeros as it is, whatever a transform subtracts and divides by.
_ABSENT = dict.fromkeys(("mean", "median", "p5", "p1"), 0.0) | dict.fromkeys(
    ("std", "iqr", "p95", "p95_p5", "p99", "p99_p1"), 1.0
)


def sidecar_path(store: str | Path) -> str:
    """Return the default place of a store's sidecar: ``<store>.normalization.json``."""
    return f"{canonical_store(store)}.normalization.json"


def read_norm_meta(key: FovKey, *, sidecar: str | Path | None = None) -> dict[str, Any] | None:
    """Read the statistics of a FOV.

    Parameters
    ----------
    key : FovKey
        Which FOV.
    sidecar : str or Path, optional
        Sidecar file; by default the one beside the store, if there is one. A FOV that it lists is taken from it,
        others from their attributes.

    Returns
    -------
    dict or None
        ``{channel: {level: ...}}`` of plain floats as stored; None when there are no statistics.

    Raises
    ------
    MissingInputError
        If the named sidecar, the store or the FOV does not exist.
    InputError
        If what is stored does not have this form.
    """
    return _read_fov(key, _read_sidecar(key.store, sidecar), str(sidecar or sidecar_path(key.store)))


class NormStatistics:
    """Statistics of many FOVs, for one list of channels per FOV, by position.

    Everything is read when the object is made, in parallel.

    Parameters
    ----------
    fovs : sequence of FovKey
        The FOVs, to which the numbers given to :meth:`samples` refer.
    channels : sequence of sequence of (str or None)
        Per FOV the channel name at each position; None where the FOV has no such channel and the patch a plane of
        zeros. Such a position gets statistics that leave zeros as they are (mean 0, std 1, ...).
    sidecars : sequence of (str, Path or None), optional
        Per FOV, see :func:`read_norm_meta`.
    names : sequence of str, optional
        Names of the positions, ``ch_0, ch_1, ...`` by default.
    """

    def __init__(
        self,
        fovs: Sequence[FovKey],
        channels: Sequence[Sequence[str | None]],
        sidecars: Sequence[str | Path | None] | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        self._fovs, self._channels = list(fovs), [list(row) for row in channels]
        if len(self._fovs) != len(self._channels):
            raise ValueError(f"{len(self._fovs)} FOVs, but channel lists of {len(self._channels)}")
        count = max(map(len, self._channels), default=0)
        self._names = list(names) if names is not None else channel_keys(count)
        sidecars = [str(path) if path else None for path in sidecars or [None] * len(self._fovs)]
        sources = {pair: _read_sidecar(*pair) for pair in {(k.store, s) for k, s in zip(fovs, sidecars, strict=True)}}

        def read(key: FovKey, sidecar: str | None) -> dict[str, Any]:
            return _read_fov(key, sources[key.store, sidecar], sidecar or sidecar_path(key.store)) or {}

        with ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="norm_meta") as pool:
            stored = list(pool.map(read, self._fovs, sidecars))
        self._stored = [
            [meta.get(name, {}) if name is not None else None for name in row]
            for meta, row in zip(stored, self._channels, strict=True)
        ]
        self._make_caches()

    def samples(self, fov: np.ndarray, t: np.ndarray) -> list[dict[str, Any]]:
        """Return the statistics of a batch of patches.

        Parameters
        ----------
        fov, t : ndarray of int, shape (B,)
            Index into the FOVs, and frame.

        Returns
        -------
        list of dict
            Per sample ``{"ch_0": {"fov_statistics": {stat: Tensor}, ...}}``, 0-D float32, with the frame's own
            ``timepoint_statistics``; a frame without (empty ones have none) takes the FOV's. What is not stored is
            left out. The dictionaries are shared between samples: do not change them.
        """
        return [self._sample(*pair) for pair in zip(np.asarray(fov).tolist(), np.asarray(t).tolist(), strict=True)]

    def missing(self, level: str) -> list[tuple[FovKey, str]]:
        """List the FOVs and channels that have no statistics of a level, such as ``"fov_statistics"``."""
        return [
            (key, name)
            for key, row, levels in zip(self._fovs, self._channels, self._stored, strict=True)
            for name, stored in zip(row, levels, strict=True)
            if stored is not None and not stored.get(level)
        ]

    def _compose(self, fov: int, t: int) -> dict[str, Any]:
        sample: dict[str, Any] = {}
        for name, fixed, frames in zip(self._names, self._fixed(fov), self._stored[fov], strict=False):
            levels = dict(fixed)
            if frames and frames.get(_TIMEPOINTS):
                own = frames[_TIMEPOINTS].get(str(t))
                level = _tensors(own) if own is not None else fixed.get("fov_statistics")
                levels |= {_TIMEPOINTS: level} if level is not None else {}
            if levels:
                sample[name] = levels
        return sample

    def _levels(self, fov: int) -> list[dict[str, dict[str, Tensor]]]:
        absent = {level: _tensors(_ABSENT) for level in (*_LEVELS, _TIMEPOINTS)}
        return [
            absent if stored is None else {level: _tensors(stored[level]) for level in _LEVELS if stored.get(level)}
            for stored in self._stored[fov]
        ]

    def _make_caches(self) -> None:
        self._fixed = lru_cache(maxsize=None)(self._levels)
        self._sample = lru_cache(maxsize=_CACHED_FRAMES)(self._compose)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_fixed", "_sample")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_caches()


def collate_norm_meta(samples: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Make one mapping of a batch from the mappings of its samples.

    Parameters
    ----------
    samples : sequence of (mapping or None)
        As :meth:`NormStatistics.samples` gives them.

    Returns
    -------
    dict
        ``{"ch_0": {level: {stat: Tensor of shape (B,), float32}}}`` with what all samples have; empty when a sample
        is None. Work is done once per distinct object, so sharing objects between samples makes this cheap.
    """
    if not samples or any(sample is None for sample in samples):
        return {}
    collated: dict[str, Any] = {}
    for channel in _common(samples):
        per_sample = [sample[channel] for sample in samples]
        levels = {level: _collate_level([entry[level] for entry in per_sample]) for level in _common(per_sample)}
        if levels := {level: statistics for level, statistics in levels.items() if statistics}:
            collated[channel] = levels
    return collated


def _collate_level(statistics: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    unique = {id(entry): entry for entry in statistics}
    place = {identity: number for number, identity in enumerate(unique)}
    index = torch.tensor([place[id(entry)] for entry in statistics])
    entries = list(unique.values())
    return {stat: torch.stack([entry[stat] for entry in entries])[index] for stat in _common(entries)}


def _common(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that all have, in the order of the first."""
    distinct = {id(mapping): mapping for mapping in mappings}.values()
    return [key for key in mappings[0] if all(key in mapping for mapping in distinct)]


def _tensors(statistics: Mapping[str, float]) -> dict[str, Tensor]:
    values = torch.tensor(list(statistics.values()), dtype=torch.float32)
    return dict(zip(statistics, values.unbind(), strict=True))


def _read_sidecar(store: str, sidecar: str | Path | None) -> dict[str, Any]:
    path = canonical_store(sidecar) if sidecar else sidecar_path(store)
    root, _, name = path.rpartition("/")
    try:
        document = open_documents(root or "/").read(name)
    except json.JSONDecodeError as err:
        raise InputError(path, found=f"no JSON ({err})", expected="a sidecar written by preprocess") from err
    if document is None and sidecar:
        raise MissingInputError(
            path,
            field="normalization_path",
            found="nothing",
            expected="a sidecar file with normalisation statistics",
            fix="write it with `viscy preprocess --data_path STORE --sidecar_path FILE`",
        )
    return (document or {}).get("fovs", {})


def _read_fov(key: FovKey, sidecar: Mapping[str, Any], sidecar_name: str) -> dict[str, Any] | None:
    if key.name in sidecar:
        meta, where = sidecar[key.name], f"{sidecar_name}, FOV {key.name}"
    else:
        meta, where = read_attributes(*key).get("normalization"), f"{key.store}, FOV {key.name}"
    if meta is not None:
        _check(where, meta)
    return meta


def _check(where: str, meta: Any) -> None:
    """Refuse what is not channel -> level -> statistic -> number."""

    def numbers(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(number, int | float) for number in value.values())

    def level(name: str, value: Any) -> bool:
        if name != _TIMEPOINTS:
            return numbers(value)
        return isinstance(value, dict) and all(map(numbers, value.values()))

    channels = meta.items() if isinstance(meta, dict) else [("", None)]
    bad = [n for n, levels in channels if not isinstance(levels, dict) or not all(level(*e) for e in levels.items())]
    if bad:
        raise InputError(
            where,
            field="normalization",
            found=f"other content for channel {bad[0]!r}",
            expected="channel -> level -> statistic -> number",
            fix="compute the statistics anew: viscy preprocess",
        )
