"""Whether the chunks of a plate can be decoded, found out before hours of work depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from viscy_data.errors import InputError, raise_all
from viscy_data.stores.arrays import begin_open, end_open, undecodable
from viscy_data.stores.names import FovInfo

__all__ = ["check_decodable"]

_TRIED = 3


def check_decodable(fovs: Sequence[FovInfo], encodings: Sequence[str]) -> None:
    """Decode one chunk of each encoding that occurs; without tensorstore nothing is checked.

    Parameters
    ----------
    fovs : sequence of FovInfo
        FOVs of a plate.
    encodings : sequence of str
        Codecs and data type of each, as text: equal texts are decoded alike.

    Raises
    ------
    InputError
        Per encoding that cannot be decoded, naming store, FOV and codec.
    """
    if find_spec("tensorstore") is None:
        return
    alike: dict[str, list[FovInfo]] = {}
    for fov, encoding in zip(fovs, encodings, strict=True):
        alike.setdefault(encoding, []).append(fov)
    raise_all(error for encoding, own in alike.items() if (error := _check(encoding, own)) is not None)


def _check(encoding: str, fovs: Sequence[FovInfo]) -> InputError | None:
    errors = []
    for fov in fovs[:_TRIED]:  # a chunk that is broken is no reason to refuse the codec
        try:
            array = end_open(fov, begin_open(fov))
        except InputError as err:
            more = f" (and {len(fovs) - 1} more)" if len(fovs) > 1 else ""
            where, field = fov.where + more, f"codecs {encoding}"
            return InputError(where, field=field, found=err.found, expected=err.expected, fix=err.fix)
        if "://" in fov.store:  # a server may fail for reasons of its own; that the codec is known is what counts
            return None
        try:
            array[(0,) * array.rank].read().result()
        except ValueError as err:
            errors.append((fov, err))
        else:
            return None
    fov, err = errors[0]
    return undecodable(f"{fov.where}, frame 0, channel {fov.channel_names[0]!r}", err, f"codecs {encoding}")
