"""Label images of the FOVs of an index: inside the FOVs, or in a store beside each experiment's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dynaclr.index import MultiExperimentIndex
from viscy_data.errors import InputError, raise_all
from viscy_data.stores import FovInfo, FovKey, read_fov, read_fovs
from viscy_utils.evaluation.feature_pieces import LabelImage

__all__ = ["find_label_images"]

_INSIDE = "labels/"


def find_label_images(
    index: MultiExperimentIndex, places: Sequence[str], channel: str | None = None
) -> list[LabelImage]:
    """Find the label image of every FOV.

    Parameters
    ----------
    index : MultiExperimentIndex
    places : sequence of str
        ``labels/NAME`` (inside of each FOV, as OME-Zarr has it) or a store with FOVs of the same names, for all
        experiments or, as ``EXPERIMENT=...``, for one.
    channel : str, optional
        Of the label images, if they have several.

    Returns
    -------
    list of LabelImage
        One per FOV of the index; of a stack that is as deep as the images the middle slice of the patches.

    Raises
    ------
    InputError
        For all FOVs without a label image, or with one of another size or without whole numbers, together.
    """
    given = _by_experiment(places, index.registry.names)
    stores = {place: {fov.name: fov for fov in read_fovs(place)} for place in _stores(given)}
    middle = (index.z_range.start + index.z_range.stop) // 2
    found, problems = [], []
    for fov, experiment in zip(index.positions, index.fov_experiments, strict=True):
        try:
            labels = _label_image(fov, given[experiment], stores)
            found.append(_checked(fov, labels, channel, middle))
        except InputError as err:
            problems.append(err)
    raise_all(problems)
    return found


def _by_experiment(places: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Say where the label images of each experiment are."""
    given: dict[str, str] = {}
    for text in places:
        experiment, sign, place = text.partition("=")
        own = [experiment] if sign and experiment in names else names
        place = place if sign and experiment in names else text
        if twice := [name for name in own if name in given]:
            raise InputError("--masks", found=f"two places for {twice[0]!r}", expected="one for each experiment")
        given |= dict.fromkeys(own, place)
    if missing := [name for name in names if name not in given]:
        found = f"nothing for the experiments {', '.join(missing)}"
        raise InputError("--masks", found=found, expected="label images of all", fix=f"add --masks {missing[0]}=STORE")
    shared = [place for place in _stores(given) if list(given.values()).count(place) > 1]
    if shared:
        raise InputError(
            "--masks",
            found=f"one store for {len(names)} experiments, {shared[0]}",
            expected="one for each, since FOVs of several experiments have the same names",
            fix="give --masks EXPERIMENT=STORE once for each experiment",
        )
    return given


def _stores(given: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(place for place in given.values() if not place.startswith(_INSIDE)))


def _label_image(fov: FovInfo, place: str, stores: Mapping[str, Mapping[str, FovInfo]]) -> FovInfo:
    if place.startswith(_INSIDE):
        return read_fov(FovKey(fov.store, f"{fov.name}/{place.rstrip('/')}"))
    if fov.name not in stores[place]:
        fix = "segment it, or leave the FOV out (exclude_fovs)"
        raise InputError(place, found=f"no FOV {fov.name}", expected=f"a label image of {fov.where}", fix=fix)
    return stores[place][fov.name]


def _checked(fov: FovInfo, labels: FovInfo, channel: str | None, middle: int) -> LabelImage:
    names = labels.channel_names
    if channel is None and len(names) > 1:
        found = f"{len(names)} channels: {', '.join(names)}"
        raise InputError(labels.where, found=found, expected="one", fix="choose it with --mask-channel")
    number = 0 if channel is None else labels.channel_index(channel, "--mask-channel")
    if labels.dtype.startswith("float"):
        raise InputError(labels.where, found=labels.dtype, expected="a label image, of whole numbers")
    (t, _, z, *plane), (_, _, depth, *_) = fov.shape, labels.shape
    if (labels.shape[0], *labels.shape[3:]) != (t, *plane) or depth not in (1, z):
        sizes = [" x ".join(map(str, (shape[0], *shape[2:]))) for shape in (labels.shape, fov.shape)]
        raise InputError(
            labels.where, found=f"{sizes[0]} (frames, slices, pixels)", expected=f"{sizes[1]}, or one slice of it"
        )
    return LabelImage(labels, number, 0 if depth == 1 else middle)
