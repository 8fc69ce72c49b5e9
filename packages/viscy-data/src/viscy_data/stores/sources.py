"""From what a config calls its images to FOVs: a plate, an image that is in no plate, many of them.

The name of a FOV is its path below its store. A plate is a store; images that are no plate have the folder around them
as theirs, so ``movies/a.zarr`` alone and among ``movies/*.zarr`` is the FOV ``a.zarr`` of ``movies``.

>>> import tempfile, numpy as np
>>> from viscy_data.testing.foreign import write_foreign_image
>>> folder = tempfile.mkdtemp()
>>> for name in ("a", "b"):
...     _ = write_foreign_image(f"{folder}/{name}.zarr", np.zeros((3, 8, 9), np.uint8), "tyx", ["Phase"])
>>> [(fov.name, fov.shape) for fov in read_fovs(f"{folder}/*.zarr")]
[('a.zarr', (3, 1, 1, 8, 9)), ('b.zarr', (3, 1, 1, 8, 9))]
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from viscy_data._documents import Documents, open_documents
from viscy_data.errors import InputError, MissingInputError, raise_all
from viscy_data.stores.attributes import Group, read_group
from viscy_data.stores.names import FovInfo, FovKey, canonical_fov_name, canonical_store
from viscy_data.stores.reading import describe_fovs, no_store, plate_keys

__all__ = ["Source", "fov_keys", "read_fovs", "refuse_missing", "source_paths"]

Source = str | Path | Sequence[str | Path]
"""Path or URL of a store, a pattern of paths, or a list of these."""

_PATTERN = "*?["
_SERIES = "bioformats2raw.layout"


def read_fovs(source: Source, *, array_key: str | None = None, workers: int | None = None) -> tuple[FovInfo, ...]:
    """List the FOVs of a store, or of several.

    Parameters
    ----------
    source : str, Path, or sequence of these
        Path or URL of an HCS plate, of a single OME-Zarr image (in a plate or not), or of a folder in the layout of
        bioformats2raw; a pattern of local paths (``movies/*.zarr``); or a list of these.
    array_key, workers
        As for :func:`viscy_data.read_plate`, which says what is checked.

    Returns
    -------
    tuple of FovInfo
        All of one store: that of the plate, or the folder that the images have in common. In the order of the plate,
        of the series, of the list; what a pattern matches is sorted.

    Raises
    ------
    MissingInputError
        If there is nothing, or nothing that matches.
    InputError
        If it is something else, or if FOVs cannot be used; all problems are named.
    """
    return describe_fovs(fov_keys(source, workers=workers), array_key=array_key, workers=workers)


def fov_keys(source: Source, *, workers: int | None = None) -> list[FovKey]:
    """Name the FOVs of a store, or of several, as :func:`read_fovs` does, without a look at their arrays."""
    keys, errors = [], []
    for path in source_paths(source):
        try:
            keys.append(_keys_at(path, workers))
        except InputError as err:
            errors.append(err)
    raise_all(errors)
    return _of_one_store(keys)


def source_paths(source: Source) -> list[str]:
    """Return the stores that are meant, in their one spelling; patterns become what they match.

    Raises
    ------
    MissingInputError
        If a pattern matches nothing.
    InputError
        If there is none, one is meant twice, or a pattern is one of URLs, which nothing lists.
    """
    given = [source] if isinstance(source, str | Path) else list(source)
    paths = [path for entry in given for path in _matches(str(entry))]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise InputError(twice[0], found="the same store twice", expected="each store once")
    if not paths:
        raise InputError("data_path", found="an empty list", expected="at least one store")
    return paths


def refuse_missing(source: Source) -> None:
    """Refuse local stores that are not there, as :func:`read_fovs` would, without a look at those that are.

    Raises
    ------
    MissingInputError
    """
    paths = [path for path in source_paths(source) if "://" not in path]
    raise_all(no_store(path) for path in paths if not os.path.exists(path))


def _matches(entry: str) -> list[str]:
    is_pattern = any(sign in entry for sign in (_PATTERN if "://" not in entry else "*"))
    if not is_pattern or os.path.exists(entry):
        return [canonical_store(entry)]
    if "://" in entry:
        raise InputError(entry, found="a pattern of URLs", expected="URLs one by one", fix="write a list of URLs")
    found = sorted(glob.glob(os.path.expanduser(entry), recursive=True))
    if not found:
        raise MissingInputError(
            entry, found="nothing that matches", expected="OME-Zarr stores", fix="check the pattern"
        )
    return [canonical_store(path) for path in found]


def _keys_at(path: str, workers: int | None) -> list[FovKey]:
    """List the FOVs at one path."""
    documents = open_documents(path)
    group = read_group(documents, "")
    if group is None:
        raise no_store(path)
    if "plate" in group.ome:
        return plate_keys(path, group, workers)
    if _SERIES in group.ome or _SERIES in group.attributes:
        return [FovKey(path, name) for name in _series(path, documents)]
    if "multiscales" in group.ome:
        return [_image_key(path)]
    expected = "metadata of a plate, of an image (multiscales), or of a series of images (bioformats2raw.layout)"
    raise InputError(path, found="a Zarr group without plate metadata and without an image", expected=expected)


def _series(path: str, documents: Documents) -> list[str]:
    """Return the images of a bioformats2raw layout: those that it lists, else the groups 0, 1, ... that there are."""
    listed = read_group(documents, "OME")
    if listed is not None and listed.ome.get("series"):
        return [canonical_fov_name(name) for name in listed.ome["series"]]
    names: list[str] = []
    while _is_image(read_group(documents, str(len(names)))):
        names.append(str(len(names)))
    if not names:
        raise InputError(path, found="a bioformats2raw layout without an image 0", expected="images 0, 1, ...")
    return names


def _image_key(path: str) -> FovKey:
    """Name an image by the plate or the series that it is in, else by the folder around it."""
    for depth, keyword in ((3, "plate"), (1, _SERIES)):
        store, name = _split(path, depth)
        around = read_group(open_documents(store), "") if store else None
        if around is not None and (keyword in around.ome or keyword in around.attributes):
            return FovKey(store, name)
    return FovKey(*_split(path, 1))


def _split(path: str, depth: int) -> tuple[str, str]:
    """Return the last parts of a path and what is before them; nothing where the path is not as deep as that."""
    scheme, mark, rest = path.rpartition("://")
    root, *names = rest.rsplit("/", depth)
    if len(names) < depth or (mark and not root):
        return "", path
    return scheme + mark + (root or "/"), "/".join(names)


def _is_image(group: Group | None) -> bool:
    return group is not None and "multiscales" in group.ome


def _of_one_store(found: Sequence[Sequence[FovKey]]) -> list[FovKey]:
    """Name FOVs of several stores by their paths below the folder that these have in common."""
    keys = [key for own in found for key in own]
    stores = sorted({key.store for key in keys})
    if len(stores) < 2:
        return keys
    parts = zip(*(store.split("/") for store in stores), strict=False)
    common = "/".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, parts))
    # A URL is at least scheme and host.
    if not common or ("://" in stores[0] and common.count("/") < 2):
        apart, expected = f"stores as far apart as {stores[0]} and {stores[-1]}", "stores below one folder or address"
        raise InputError("data_path", found=apart, expected=expected, fix="make them experiments of their own")
    return [FovKey(common, "/".join(filter(None, [key.store[len(common) + 1 :], key.name]))) for key in keys]
