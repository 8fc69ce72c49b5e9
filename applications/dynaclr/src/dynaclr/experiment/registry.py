"""Experiments: what the user says about each, checked against the stores, and channels mapped across them.

>>> registry = ExperimentRegistry.from_yaml("experiments.yml")  # doctest: +SKIP
>>> registry.tau_range_frames("dengue", (0.5, 2.0))  # doctest: +SKIP
(1, 4)
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dynaclr.experiment.channels import TrainingChannels, resolve_channels
from dynaclr.experiment.checks import check_config, check_names, check_plate, within
from dynaclr.experiment.config import ExperimentConfig
from dynaclr.experiment.file import read_experiments
from dynaclr.tau_sampling import checked_tau_range
from viscy_data.checks import near_matches
from viscy_data.errors import InputError, raise_all
from viscy_data.stores import (
    DEFAULT_STORAGE,
    FovInfo,
    FovKey,
    Source,
    StoragePolicy,
    UsableFovs,
    canonical_store,
    left_out_text,
    usable_fovs,
)

__all__ = ["ExperimentRegistry"]


class ExperimentRegistry:
    """Checked experiments with their FOVs and channel maps; each store is opened once.

    Parameters
    ----------
    experiments : sequence of ExperimentConfig
        At least one.
    training_channels : {"shared", "all"} or list of str, optional
        How channels correspond. By default by position in ``source_channel``, which must then have one length.
        ``"shared"``: the names that all experiments use. ``"all"``: every name that any experiment uses; a channel that
        an experiment lacks is absent (-1). A list: these names, which every store must have.
    source : str or Path, default ""
        File that the experiments come from, for messages.
    storage : StoragePolicy, default ``DEFAULT_STORAGE``
        What to do about FOVs that cannot be read, and about chunks that are not stored.

    Attributes
    ----------
    experiments : list of ExperimentConfig
    num_source_channels : int
        Number of channel positions C.
    channel_maps : dict of str to dict of int to int
        Per experiment: position to channel index in the store, -1 where it is absent.
    source_names : dict of str to list of (str or None)
        Per experiment: name of the channel at each position, None where it is absent.
    fovs : dict of str to tuple of FovInfo
        Per experiment: its FOVs in plate order.
    left_out : dict of FovKey to str
        FOVs that cannot be read and are left out, with what was found there.

    Raises
    ------
    InputError
        With all problems together: names that repeat, values of the wrong type, stores that are missing, channels or
        wells that are not in the store, channels that do not correspond.
    """

    def __init__(
        self,
        experiments: Sequence[ExperimentConfig],
        training_channels: TrainingChannels | None = None,
        *,
        source: str | Path = "",
        storage: StoragePolicy = DEFAULT_STORAGE,
    ) -> None:
        self.experiments = list(experiments)
        opened = _open_experiments(self.experiments, training_channels, str(source), storage)
        raise_all(opened.errors)
        self.fovs, self.source_names, self.left_out = opened.fovs, opened.source_names, opened.left_out
        self.channel_maps = {
            config.name: {
                position: -1 if channel is None else config.channel_names.index(channel)
                for position, channel in enumerate(self.source_names[config.name])
            }
            for config in self.experiments
        }
        self.num_source_channels = len(self.source_names[self.experiments[0].name])
        self._source = str(source)
        for store, names in self.shared_stores.items():
            warnings.warn(
                f"experiments {', '.join(names)} read the same store {store}: their cells are counted once for each, "
                "and must not be split between training and validation",
                stacklevel=2,
            )

    @classmethod
    def from_yaml(
        cls,
        path: str | Path,
        training_channels: TrainingChannels | None = None,
        *,
        storage: StoragePolicy = DEFAULT_STORAGE,
    ) -> ExperimentRegistry:
        """Read the experiments of a YAML file.

        Parameters
        ----------
        path : str or Path
            File with the key ``experiments``: a list of mappings with the fields of :class:`ExperimentConfig`. Relative
            paths are resolved against the folder of the file.
        training_channels, storage
            As in the constructor.

        Raises
        ------
        InputError
            With all problems of the file together.
        """
        experiments, errors = read_experiments(path)
        if errors:
            further = (
                _open_experiments(experiments, training_channels, str(path), storage).errors if experiments else []
            )
            raise_all([*errors, *further])
        return cls(experiments, training_channels, source=path, storage=storage)

    @property
    def names(self) -> list[str]:
        """Names of the experiments, in their order."""
        return [config.name for config in self.experiments]

    @property
    def interval_hours(self) -> np.ndarray:
        """Hours from one frame to the next, float64 of shape (experiments,)."""
        return np.array([config.interval_minutes / 60 for config in self.experiments])

    def channel_keys(self) -> list[str]:
        """Name the channel positions as batches do: ``ch_0``, ``ch_1``, ..."""
        from viscy_data.channels import channel_keys  # torch comes with it

        return channel_keys(self.num_source_channels)

    @property
    def shared_stores(self) -> dict[str, tuple[str, ...]]:
        """Stores that more than one experiment reads, with the names of these experiments."""
        readers = defaultdict(list)
        for name, fovs in self.fovs.items():
            readers[fovs[0].store].append(name)
        return {store: tuple(names) for store, names in readers.items() if len(names) > 1}

    def get_experiment(self, name: str) -> ExperimentConfig:
        """Return an experiment by its name.

        Raises
        ------
        KeyError
            If there is none of that name; the message has near matches.
        """
        for config in self.experiments:
            if config.name == name:
                return config
        raise KeyError(f"no experiment {name!r}: {near_matches(name, self.names)}")

    def where(self, name: str) -> str:
        """Say where an experiment is described, for messages: the file, if it was read from one, and its name."""
        return _where(self._source, name)

    def subset(self, names: Iterable[str]) -> ExperimentRegistry:
        """Return some of the experiments, in the order of this registry, without opening a store again.

        Channel positions stay as they are.

        Raises
        ------
        KeyError
            If a name is unknown.
        """
        chosen = {self.get_experiment(name).name for name in names}
        part = copy.copy(self)
        part.experiments = [config for config in self.experiments if config.name in chosen]
        for attribute in ("fovs", "source_names", "channel_maps"):
            values: Mapping = getattr(self, attribute)
            setattr(part, attribute, {name: value for name, value in values.items() if name in chosen})
        return part

    def without(self, left_out: Mapping[FovKey, str]) -> ExperimentRegistry:
        """Return the registry without some of its FOVs, such as those that another rank cannot read.

        Raises
        ------
        InputError
            Naming the experiments that have no others.
        """
        part = copy.copy(self)
        part.fovs = {name: tuple(fov for fov in fovs if fov.key not in left_out) for name, fovs in self.fovs.items()}
        raise_all(
            InputError(self.where(name), field="data_path", found=left_out_text(left_out), expected="a FOV to read")
            for name, fovs in part.fovs.items()
            if not fovs
        )
        part.left_out = self.left_out | dict(left_out)
        return part

    def channel_mask(self, name: str) -> np.ndarray:
        """Return which channel positions an experiment has, bool of shape (C,)."""
        config = self.get_experiment(name)
        return np.array([channel is not None for channel in self.source_names[config.name]])

    def tau_range_frames(self, experiment_name: str, tau_range_hours: tuple[float, float]) -> tuple[int, int]:
        """Convert a range of time offsets to the frames of an experiment.

        Parameters
        ----------
        experiment_name : str
            Experiment whose interval counts.
        tau_range_hours : tuple of float
            First and last offset in hours, both included. (0, 0) means the anchor's own frame.

        Returns
        -------
        tuple of int
            ``(ceil(first), floor(last))`` in frames and at least 1, so that every pair lies inside the hours asked for;
            (0, 0) for (0, 0).

        Raises
        ------
        KeyError
            If the experiment is unknown.
        InputError
            If the range is reversed, negative or holds no frame of this experiment.
        """
        config = self.get_experiment(experiment_name)
        first, last = checked_tau_range(tau_range_hours)
        if last == 0:
            return 0, 0
        # A hair of tolerance: 0.1 h at 2 min is 3.0000000000000004 frames.
        frames_per_hour = 60 / config.interval_minutes
        low = max(math.ceil(first * frames_per_hour - 1e-6), 1)
        high = math.floor(last * frames_per_hour + 1e-6)
        if low > high:
            raise InputError(
                self.where(config.name),
                field="tau_range",
                found=f"{first:g} to {last:g} h, without a whole number of frames of {config.interval_minutes:g} min",
                expected=f"a range that contains a multiple of {config.interval_minutes / 60:g} h",
                fix=f"extend tau_range, for example to ({first:g}, {low / frames_per_hour:g})",
            )
        return low, high


def _where(source: str, name: object) -> str:
    return f"{source}: experiment {name!r}" if source else f"experiment {name!r}"


class _Opened(NamedTuple):
    """What was found at the stores of experiments, and what is wrong."""

    fovs: dict[str, tuple[FovInfo, ...]]
    source_names: dict[str, list[str | None]]
    left_out: dict[FovKey, str]
    errors: list[InputError]


def _open_experiments(
    experiments: Sequence[ExperimentConfig],
    training_channels: TrainingChannels | None,
    source: str,
    storage: StoragePolicy,
) -> _Opened:
    """Check everything that can be checked, so that all problems are known at once."""
    errors = check_names(experiments, source)
    sound = []
    for config in experiments:
        found = check_config(config, _where(source, config.name))
        errors += found
        if not found:
            sound.append(config)
    plates, store_errors = _open_plates(sound, source, storage)
    errors += store_errors
    fovs = {}
    for config in sound:
        plate = plates.get(_hashable(config.data_path))
        if plate is not None:
            errors += check_plate(config, plate, _where(source, config.name))
            fovs[config.name] = plate.fovs
    source_names, channel_errors = resolve_channels(sound, training_channels, lambda name: _where(source, name))
    left_out = {key: why for plate in plates.values() for key, why in plate.left_out.items()}
    return _Opened(fovs, source_names, left_out, errors + channel_errors)


def _hashable(data_path: Source) -> str | tuple[str, ...]:
    return tuple(map(canonical_store, data_path)) if isinstance(data_path, list) else canonical_store(data_path)


def _open_plates(
    experiments: Sequence[ExperimentConfig], source: str, storage: StoragePolicy
) -> tuple[dict[str | tuple[str, ...], UsableFovs], list[InputError]]:
    """List the FOVs of every store, each once, in parallel."""
    first_reader = {_hashable(config.data_path): config for config in reversed(experiments)}

    def open_plate(store: str | tuple[str, ...]) -> UsableFovs | list[InputError]:
        try:
            return usable_fovs(store, storage)
        except InputError as err:
            return within(err, _where(source, first_reader[store].name), "data_path")

    with ThreadPoolExecutor(8, thread_name_prefix="open_plates") as pool:
        found = dict(zip(first_reader, pool.map(open_plate, first_reader), strict=True))
    plates = {store: plate for store, plate in found.items() if isinstance(plate, UsableFovs)}
    return plates, [err for errors in found.values() if isinstance(errors, list) for err in errors]
