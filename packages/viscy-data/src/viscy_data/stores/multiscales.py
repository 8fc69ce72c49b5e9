"""What the OME-NGFF metadata of an image say of its arrays: path, axes, scale, names of channels."""

from __future__ import annotations

from typing import Any

from viscy_data.errors import InputError
from viscy_data.stores.names import canonical_fov_name

__all__ = ["AXES", "array_path", "axes_of", "channel_names_of", "scale_of"]

AXES = "tczyx"
"""The order in which everything here hands pixels on."""

_BY_TYPE = {"channel": "c", "time": "t"}


def array_path(ome: dict[str, Any]) -> str:
    """Return the path of the full resolution: the first of the multiscales, "0" where there are none."""
    datasets = _image(ome).get("datasets") or [{}]
    return canonical_fov_name(datasets[0].get("path", "0"))


def axes_of(ome: dict[str, Any], n_axes: int, where: str) -> str:
    """Return the axes of the stored array in its order, such as ``"tzcyx"``.

    Parameters
    ----------
    ome : dict
        OME-NGFF metadata of the image.
    n_axes : int
        Number of axes of the array.
    where : str
        Store and FOV, for messages.

    Raises
    ------
    InputError
        If axes are unknown, occur twice, are not as many as the array's, or y or x is not among them.
    """
    entries = _image(ome).get("axes")
    if not entries:
        if n_axes == len(AXES):
            return AXES
        raise InputError(
            where,
            field="multiscales.axes",
            found=f"nothing, for an array of {n_axes} axes",
            expected="the names of the axes, or five axes TCZYX",
        )
    axes = [_axis(entry) for entry in entries]
    named = ", ".join(_shown(entry) for entry in entries)
    if any(axis not in AXES for axis in axes) or len(set(axes)) < len(axes) or not {"y", "x"} <= set(axes):
        raise InputError(where, field="multiscales.axes", found=named, expected="y and x, and any of t, c and z, once")
    if len(axes) != n_axes:
        expected = f"those of the array, which has {n_axes} axes; without names it needs five axes, TCZYX"
        raise InputError(where, field="multiscales.axes", found=named, expected=expected)
    return "".join(axes)


def scale_of(ome: dict[str, Any], path: str, axes: str) -> tuple[float, ...]:
    """Return the size of one step along T, C, Z, Y and X, 1.0 where nothing is recorded."""
    steps = dict.fromkeys(AXES, 1.0)
    image = _image(ome)
    datasets = [entry for entry in image.get("datasets") or [] if canonical_fov_name(entry.get("path")) == path]
    for node in [image, *datasets]:
        for transform in node.get("coordinateTransformations") or []:
            if transform.get("type") == "scale" and len(transform.get("scale", ())) == len(axes):
                for axis, step in zip(axes, transform["scale"], strict=True):
                    steps[axis] *= float(step)
    return tuple(steps[axis] for axis in AXES)


def channel_names_of(ome: dict[str, Any], n_channels: int, where: str) -> tuple[tuple[str, ...], bool]:
    """Return the names of the channels, and whether the store names all of them.

    A channel without a label (or with an empty one) is called by its number. Names may repeat: that is a problem only
    for whoever asks for such a channel by name.

    Raises
    ------
    InputError
        If there are labels, and not one per channel.
    """
    channels = (ome.get("omero") or {}).get("channels") or [{}] * n_channels
    if len(channels) != n_channels:
        raise InputError(
            where,
            found=f"{len(channels)} channel names for {n_channels} channels",
            expected="one label per channel in the omero metadata",
        )
    labels = [channel.get("label") for channel in channels]
    labels = ["" if label is None or not str(label).strip() else str(label) for label in labels]
    return tuple(label or str(number) for number, label in enumerate(labels)), all(labels)


def _image(ome: dict[str, Any]) -> dict[str, Any]:
    return (ome.get("multiscales") or [{}])[0]


def _axis(entry: Any) -> str:
    """Return the letter of an axis: by its name, or by its type where the name is free."""
    if isinstance(entry, str):
        return entry.lower()
    name = str(entry.get("name", "")).lower()
    return name if name in AXES and len(name) == 1 else _BY_TYPE.get(entry.get("type"), name or "?")


def _shown(entry: Any) -> str:
    return repr(entry if isinstance(entry, str) else entry.get("name"))
