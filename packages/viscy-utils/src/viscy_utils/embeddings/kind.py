"""What is stored at a path, told before the libraries that read it are imported."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from viscy_data.checks import near_matches
from viscy_data.errors import InputError, MissingInputError, reading_file
from viscy_data.schema import refuse_newer

__all__ = [
    "ORIGIN",
    "ORIGIN_SCHEMA",
    "kind_of_store",
    "part_folders",
    "parts_path_of",
    "refuse_later",
    "refuse_unfinished",
]

ORIGIN = "origin"
"""Key of ``uns`` with the origin of the embeddings."""
ORIGIN_SCHEMA = 1
"""Layout of stored embeddings and their origin."""

_IMAGE_KEYS = {"multiscales", "plate", "well", "omero", "ome"}
_EXPECTED = "a store of embeddings"


def kind_of_store(path: str | Path) -> Literal["anndata", "parts", "xarray"]:
    """Tell in which layout embeddings are stored.

    Parameters
    ----------
    path : str or Path
        A store, or the folder ``<store>.parts`` of an unfinished prediction.

    Returns
    -------
    {"anndata", "parts", "xarray"}
        The xarray layout is that of old.

    Raises
    ------
    MissingInputError
        If there is nothing.
    InputError
        If there is something else, such as a table, a config or an image store.
    """
    path = Path(path)
    if not path.exists():
        raise _missing(path)
    if not path.is_dir():
        kind = "a YAML file" if path.suffix in (".yml", ".yaml") else f"a file ({path.suffix or 'without a suffix'})"
        raise _other(path, kind)
    if path.name.endswith(".parts") and part_folders(path):
        return "parts"
    import zarr

    try:
        with reading_file(path, _EXPECTED):
            group = zarr.open_group(path, mode="r")
    except FileNotFoundError as err:
        raise _other(path, "a folder that is no zarr group") from err
    if group.attrs.get("encoding-type") == "anndata":
        return "anndata"
    if _IMAGE_KEYS & set(group.attrs):
        raise _other(path, "an image store (OME-Zarr)")
    if "features" not in group:
        raise _other(path, f"a zarr group of {', '.join(sorted(group)) or 'nothing'}")
    return "xarray"


def refuse_unfinished(path: str | Path) -> None:
    """Refuse what is no finished store of embeddings.

    Raises
    ------
    MissingInputError, InputError
        If there is nothing or something else, also an unfinished prediction, a store of the old layout or of a later
        one.
    """
    kind = kind_of_store(path)
    if kind == "parts":
        raise InputError(
            str(path), found="an unfinished prediction", expected=_EXPECTED, fix="let the command that writes it finish"
        )
    if kind == "xarray":
        raise InputError(
            str(path), found="embeddings of the old layout", fix="convert them with `viscy convert_to_anndata`"
        )
    refuse_later(path)


def refuse_later(path: str | Path) -> None:
    """Refuse embeddings of a later layout; those that do not say where they come from are read.

    Raises
    ------
    InputError
        Naming the version that reads them.
    """
    import numpy as np
    import zarr

    with reading_file(path, _EXPECTED):
        group = zarr.open_group(path, mode="r", use_consolidated=False)
        names = [f"uns/{ORIGIN}/{name}" for name in ("schema", "versions/viscy-utils")]
        said = [group[name] if name in group else None for name in names]
        # Scalars alone: what declares more is none of ours, and is not read.
        is_scalar = [isinstance(own, zarr.Array) and own.shape == () for own in said]
        schema, version = (np.asarray(own[()]).item() if one else own for own, one in zip(said, is_scalar, strict=True))
    if schema is not None:
        written = f"viscy-utils {version}" if isinstance(version, str) else None
        refuse_newer(str(path), schema, ORIGIN_SCHEMA, "viscy-utils", written, field="schema")


def parts_path_of(output_path: str | Path) -> Path:
    """Return the folder beside an output that holds what is written before it is complete."""
    output_path = Path(output_path)
    return output_path.with_name(f"{output_path.name}.parts")


def part_folders(path: Path) -> list[Path]:
    """List the parts of an unfinished prediction in ``<output>.parts``, those of each rank in order."""
    return sorted(path.glob("rank*/[0-9]*-[0-9]*"))


def _missing(path: Path) -> MissingInputError:
    parts = parts_path_of(path)
    if parts.exists():
        hint = f"an unfinished prediction can be read at {parts}"
    else:
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = near_matches(path.name, beside, otherwise="write it with predict")
    return MissingInputError(str(path), found="nothing", expected=_EXPECTED, fix=hint)


def _other(path: Path, found: str) -> InputError:
    return InputError(str(path), found=found, expected=_EXPECTED, fix="name the store that predict has written")
