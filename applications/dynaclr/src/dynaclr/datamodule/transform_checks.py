"""Whether the transforms of a config fit the experiments: found at set-up, not in the middle of an epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from monai.transforms import MapTransform

from dynaclr.dataset import MultiExperimentTripletDataset
from viscy_data.errors import InputError
from viscy_transforms import NormalizeSampled

__all__ = ["check_keys", "check_statistics"]


def check_keys(transforms: Sequence[MapTransform], keys: Sequence[str], where: str) -> list[InputError]:
    """Return a problem for every transform that names a channel by anything but its position."""
    problems = []
    for transform in transforms:
        unknown = [key for key in getattr(transform, "keys", ()) if key not in keys]
        if unknown and not getattr(transform, "allow_missing_keys", False):
            problems.append(
                InputError(
                    where,
                    field=f"keys of {type(transform).__name__}",
                    found=", ".join(map(repr, unknown)),
                    expected=f"some of {', '.join(keys)}: channels are named by their position in source_channel",
                )
            )
    return problems


def check_statistics(
    dataset: MultiExperimentTripletDataset, transforms: Sequence[MapTransform], keys: Sequence[str], where: str
) -> list[InputError]:
    """Return a problem for every experiment and channel that lacks statistics which a transform needs."""
    index = dataset.index
    problems = {}
    for transform in transforms:
        if not isinstance(transform, NormalizeSampled):
            continue
        positions = [position for position, key in enumerate(keys) if key in transform.keys]
        missing = set(dataset.statistics.missing(transform.level))
        lacking: Counter[tuple[str, str, str]] = Counter()
        for fov, experiment in zip(index.positions, dataset.fov_experiments, strict=True):
            names = index.registry.source_names[experiment]
            lacking.update(
                (experiment, names[position], fov.store)
                for position in positions
                if (fov.key, names[position]) in missing
            )
        for (experiment, channel, store), n_fovs in lacking.items():
            problems[experiment, channel, transform.level] = InputError(
                f"{where}: experiment {experiment!r}",
                field="normalizations (NormalizeSampled)",
                found=f"no {transform.level} of channel {channel!r} in {n_fovs} FOVs of {store}",
                expected="statistics for every FOV and channel that is normalised",
                fix=f"viscy preprocess --data_path {store}",
            )
    return list(problems.values())
