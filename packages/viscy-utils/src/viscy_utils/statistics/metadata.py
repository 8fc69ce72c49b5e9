"""Normalisation statistics of a store: computing them and writing them where training looks for them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.progress import track

from viscy_data.checks import Option, check_options, is_count
from viscy_data.errors import InputError, MissingInputError, raise_all
from viscy_data.files import may_not_write, replacing
from viscy_data.pieces import map_pieces
from viscy_data.select import fovs_named
from viscy_data.stores import (
    DEFAULT_STORAGE,
    FovInfo,
    FovKey,
    Source,
    StoragePolicy,
    canonical_store,
    left_out_text,
    read_attributes,
    update_attributes_of,
    usable_fovs,
    why_left_out,
)
from viscy_utils.statistics.pixel_samples import (
    FovSample,
    FrameSample,
    FramesToSample,
    Sampling,
    frames_to_sample,
    sample_frames,
    try_frames,
)
from viscy_utils.statistics.summaries import get_val_stats

__all__ = ["Preprocessed", "generate_normalization_metadata", "sidecar_path_of", "write_meta_field"]

_logger = logging.getLogger(__name__)

_FIELD = "normalization"
_ALIASED = 0.25  # standard deviations between the mean of the sample and that of all pixels


@dataclass(frozen=True)
class Preprocessed:
    """What became of a store.

    Parameters
    ----------
    store, target : str
        The store, and where its statistics are: itself or a JSON file.
    n_fovs : int
    channels, other_channels : tuple of str
        Those with new statistics, and those without.
    n_empty_frames : int
        Frames without content, which do not count; those of each channel by itself.
    n_nonfinite : int
        Sampled pixels that are NaN or infinite, which do not count.
    left_out : dict of FovKey to str
        FOVs that could not be read, and why; they keep the statistics that they had.
    """

    store: str
    target: str
    n_fovs: int
    channels: tuple[str, ...]
    other_channels: tuple[str, ...]
    n_empty_frames: int
    n_nonfinite: int
    left_out: Mapping[FovKey, str] = field(default_factory=dict)

    def __str__(self) -> str:
        names = ", ".join(self.channels)
        left_out = [f"channel {name}" for name in self.other_channels]
        left_out += [f"{self.n_empty_frames} frames without content"] if self.n_empty_frames else []
        left_out += [f"{self.n_nonfinite} pixels that are no finite numbers"] if self.n_nonfinite else []
        text = f"wrote {self.target}: statistics of {names} in {self.n_fovs} FOVs of {self.store}"
        text += f"; left out {', '.join(left_out) or 'nothing'}" if left_out or not self.left_out else ""
        return f"{text}; {left_out_text(self.left_out)}" if self.left_out else text


class _HasAttributes(Protocol):
    zattrs: MutableMapping[str, Any]


def write_meta_field(
    position: _HasAttributes, metadata: Mapping[str, Any], field_name: str, subfield_name: str
) -> None:
    """Merge entries into ``attributes[field_name][subfield_name]`` of an open plate or FOV.

    Parameters
    ----------
    position : object with ``zattrs``
        An iohub plate or position, open for writing.
    metadata : mapping
        Entries to set; others of the subfield stay.
    field_name, subfield_name : str
        Such as ``"normalization"`` and the name of a channel.
    """
    field = dict(position.zattrs.get(field_name, {}))
    field[subfield_name] = {**field.get(subfield_name, {}), **metadata}
    position.zattrs[field_name] = field


def sidecar_path_of(store: str | Path) -> Path:
    """Return where the statistics of a read-only store are kept: ``<store>.normalization.json``, beside it."""
    store = Path(store)
    return store.with_name(f"{store.name}.normalization.json")


def generate_normalization_metadata(
    zarr_dir: Source,
    num_workers: int = 4,
    channel_ids: int | str | Sequence[int | str] = -1,
    grid_spacing: int = 32,
    *,
    sampling: Sampling = "grid",
    dataset_fovs: Sequence[str] | None = None,
    sidecar_path: str | Path | None = None,
    dask: str | None = None,
    storage: StoragePolicy = DEFAULT_STORAGE,
) -> Preprocessed:
    """Compute statistics per channel of dataset, FOV and time point, and write them as attributes of the store.

    Frames without content (one constant value, or nothing finite) and non-finite pixels are left out and reported.
    FOVs may differ in size and length. Channels that are not named keep the statistics they have.

    Parameters
    ----------
    zarr_dir : str, Path, or sequence of these
        HCS OME-Zarr store, single image, pattern of paths or list, see :func:`viscy_data.read_fovs`.
    num_workers : int, default 4
        Threads, or processes of ``dask="local"``, that read.
    channel_ids : int, str or sequence of these, default -1
        Positions or names of the channels; -1 takes all.
    grid_spacing : int, default 32
        One pixel in ``grid_spacing ** 2`` counts.
    sampling : {"grid", "stratified"}, default "grid"
        See :func:`viscy_utils.statistics.pixel_samples.sample_frame`.
    dataset_fovs : sequence of str, optional
        FOVs (``A/1/0``) or wells (``A/1``) whose pixels make the dataset and time point statistics, for instance
        those used for training. All by default.
    sidecar_path : str or Path, optional
        Write to this JSON file instead of the store. A store that cannot be written gets one beside it, see
        :func:`sidecar_path_of`.
    dask : str, optional
        Scheduler of a Dask cluster that reads, or ``local``, see :func:`viscy_data.pieces.map_pieces`; threads by
        default.
    storage : StoragePolicy, default ``DEFAULT_STORAGE``
        What to do about FOVs that cannot be read: with ``leave_out`` also about those with a fault in the middle, as
        all of their chunks are read.

    Returns
    -------
    Preprocessed
        What was computed of what, what was left out, and where it is.

    Raises
    ------
    InputError
        If the store cannot be used, a channel or FOV does not exist, a channel has no content at all, or nothing can
        be written.
    """
    found = usable_fovs(zarr_dir, storage)
    fovs, left_out = found.fovs, dict(found.left_out)
    store = fovs[0].store if fovs else str(zarr_dir)
    channels = _channel_names(fovs, store, channel_ids)
    counts = {"block_size (grid_spacing)": grid_spacing, "num_workers": num_workers}
    options = [Option(name, n, is_count(n, 1), "a positive whole number") for name, n in counts.items()]
    raise_all(check_options("preprocess", options))
    pooled = set(fovs)
    if dataset_fovs is not None:
        pooled = set(fovs_named(fovs, dataset_fovs, where=store, field="dataset_fovs", left_out=left_out))
    pieces = list(frames_to_sample(fovs, channels, grid_spacing, sampling))
    sample = sample_frames if storage.bad_fovs == "stop" else try_frames
    samples, bad = _sample(channels, pieces, map_pieces(sample, pieces, workers=num_workers, dask=dask))
    left_out |= {key: why_left_out(key, err) for key, err in bad.items()}
    fovs = [fov for fov in fovs if fov.key not in bad]
    if not fovs:
        raise_all(bad.values())
    by_channel = {channel: [samples[fov.key, channel] for fov in fovs] for channel in channels}
    for channel in channels:
        _report(channel, fovs, by_channel[channel])
    counted = [fov in pooled for fov in fovs]
    statistics = {channel: _statistics(channel, store, by_channel[channel], counted) for channel in channels}
    sampled = [sample for own in by_channel.values() for sample in own]
    target = _write(fovs, store, statistics, sidecar_path)
    named = canonical_store(zarr_dir) if isinstance(zarr_dir, str | Path) else store  # an image is in a folder
    return Preprocessed(
        store=named,
        target=named if target == store else target,
        n_fovs=len(fovs),
        channels=tuple(channels),
        other_channels=tuple(name for name in dict.fromkeys(fovs[0].channel_names) if name not in channels),
        n_empty_frames=sum(len(sample.empty) for sample in sampled),
        n_nonfinite=sum(sample.n_nonfinite for sample in sampled),
        left_out=left_out,
    )


def _sample(
    channels: Sequence[str],
    pieces: Sequence[FramesToSample],
    done: Iterable[dict[str, list[FrameSample]] | InputError],
) -> tuple[dict[tuple[FovKey, str], FovSample], dict[FovKey, InputError]]:
    """Put the pieces of every FOV together, by FOV and channel; name the FOVs of which one could not be read."""
    found = {(piece.fov.key, channel): [] for piece in pieces for channel in channels}
    bad: dict[FovKey, InputError] = {}
    for piece, samples in zip(
        pieces, track(done, "normalisation statistics", len(pieces), transient=True), strict=True
    ):
        if isinstance(samples, InputError):
            bad.setdefault(piece.fov.key, samples)
            continue
        for channel, frames in samples.items():
            found[piece.fov.key, channel] += frames
    return {key: FovSample.of(frames) for key, frames in found.items() if key[0] not in bad}, bad


def _channel_names(fovs: Sequence[FovInfo], store: str, channel_ids: int | str | Sequence[int | str]) -> list[str]:
    if not fovs:
        raise InputError(store, found="a plate without FOVs")
    names = fovs[0].channel_names
    different = [fov.name for fov in fovs if fov.channel_names != names]
    if different:
        raise InputError(f"{store}, FOV {different[0]}", found="other channels than in the first FOV")
    if channel_ids == -1:
        return _unique_names(names, store)
    asked = [channel_ids] if isinstance(channel_ids, int | str) else channel_ids
    ids = [fovs[0].channel_index(own, "channel_names") if isinstance(own, str) else own for own in asked]
    wrong = [i for i in ids if not 0 <= i < len(names)]
    if wrong:
        raise InputError(store, field="channel_ids", found=str(wrong), expected=f"0 to {len(names) - 1}")
    for i in ids:
        fovs[0].channel_index(names[i], "channel_ids")  # statistics are kept by name
    return [names[i] for i in ids]


def _unique_names(names: Sequence[str], store: str) -> list[str]:
    """Leave out names that several channels share: statistics are kept by name."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        _logger.warning(
            "%s: several channels are called %s; they get no statistics until they have names of their own",
            store, ", ".join(map(repr, repeated)),
        )  # fmt: skip
    if len(repeated) == len(set(names)):
        raise InputError(store, field="channel_names", found=f"only {', '.join(map(repr, repeated))}, each repeatedly")
    return [name for name in names if name not in repeated]


def _statistics(channel: str, store: str, samples: Sequence[FovSample], counted: Sequence[bool]) -> dict[str, Any]:
    """Statistics of one channel: ``dataset``, ``timepoints`` and a list ``fovs`` with None for empty FOVs."""
    pooled = [sample for sample, counts in zip(samples, counted, strict=True) if counts]
    values = [frame for sample in pooled for frame in sample.frames.values()]
    if not values:
        raise InputError(f"{store}, channel {channel}", found="no frame with content", expected="an image somewhere")
    dataset = get_val_stats(np.concatenate(values))
    true_mean = np.average([s.mean for s in pooled if s.frames], weights=[len(s.frames) for s in pooled if s.frames])
    if abs(dataset["mean"] - true_mean) > _ALIASED * dataset["std"]:
        _logger.warning(
            "%s, channel %s: the sampled pixels have mean %.4g, all pixels %.4g; a periodic image needs "
            "sampling: stratified, a small one a smaller grid_spacing",
            store,
            channel,
            dataset["mean"],
            true_mean,
        )
    times = sorted({t for sample in pooled for t in sample.frames})
    return {
        "dataset": dataset,
        "timepoints": {
            str(t): get_val_stats(np.concatenate([s.frames[t] for s in pooled if t in s.frames])) for t in times
        },
        "fovs": [get_val_stats(np.concatenate(list(s.frames.values()))) if s.frames else None for s in samples],
    }


def _report(channel: str, fovs: Sequence[FovInfo], samples: Sequence[FovSample]) -> None:
    for fov, sample in zip(fovs, samples, strict=True):
        if sample.empty:
            _logger.warning(
                "%s, FOV %s, channel %s: left out %d of %d frames without content: t = %s",
                fov.store, fov.name, channel, len(sample.empty), fov.shape[0], ", ".join(map(str, sample.empty)),
            )  # fmt: skip
        if sample.n_nonfinite:
            _logger.warning(
                "%s, FOV %s, channel %s: left out %d sampled pixels that are NaN or infinite",
                fov.store, fov.name, channel, sample.n_nonfinite,
            )  # fmt: skip


def _write(fovs: Sequence[FovInfo], store: str, statistics: dict[str, Any], sidecar: str | Path | None) -> str:
    writable = "://" not in store and all(os.access(fov.path, os.W_OK) for fov in fovs)
    if sidecar is None and not writable:
        if "://" in store:
            raise InputError(store, field="sidecar_path", found="nothing", expected="a local path for the statistics")
        sidecar = sidecar_path_of(store)
        _logger.warning("%s cannot be written; the statistics go to %s", store, sidecar)
    entries = dict(_entries(fovs, statistics))
    target = store if sidecar is None else str(sidecar)
    try:
        if sidecar is not None:
            _write_sidecar(Path(sidecar), entries)
        else:
            if not _has_attributes(store):
                del entries[None]
            kept = {name: read_attributes(store, name).get(_FIELD, {}) for name in entries}
            merged = {name: {**kept[name], **channels} for name, channels in entries.items()}
            update_attributes_of(store, _FIELD, merged)
    except OSError as err:
        if not may_not_write(err):
            raise
        fix = "write them into a folder of yours: --sidecar_path FILE.json"
        raise InputError(target, found=f"no permission to write the statistics ({err.strerror})", fix=fix) from err
    return target


def _has_attributes(store: str) -> bool:
    """Tell a plate from a mere folder of images, which has nothing to keep statistics in."""
    try:
        read_attributes(store)
    except MissingInputError:
        return False
    return True


def _entries(fovs: Sequence[FovInfo], statistics: dict[str, Any]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Attributes of the plate (under None) and of each FOV, by channel."""
    shared = {
        channel: {"dataset_statistics": found["dataset"], "timepoint_statistics": found["timepoints"]}
        for channel, found in statistics.items()
    }
    yield None, shared
    for i, fov in enumerate(fovs):
        own = {channel: found["fovs"][i] for channel, found in statistics.items()}
        yield (
            fov.name,
            {c: levels | ({"fov_statistics": own[c]} if own[c] is not None else {}) for c, levels in shared.items()},
        )


def _write_sidecar(path: Path, entries: dict[str | None, dict[str, Any]]) -> None:
    """Merge into the JSON file, replaced in one step."""
    content = _read_sidecar(path) if path.exists() else {"plate": {}, "fovs": {}}
    content["plate"] |= entries[None]
    for name, channels in entries.items():
        if name is not None:
            content["fovs"][name] = content["fovs"].get(name, {}) | channels
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False))


def _read_sidecar(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if {"plate", "fovs"} <= content.keys():
            return content
    except (ValueError, AttributeError):  # no JSON, or none with keys
        pass
    raise InputError(
        str(path), field="sidecar_path", found="another file", expected="statistics", fix="name a new file"
    )
