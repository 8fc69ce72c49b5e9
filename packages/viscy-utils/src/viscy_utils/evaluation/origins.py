"""Whether embeddings that are compared are of the same cells, the same data and different encoders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from viscy_utils.evaluation.embedded import CELL, Embedded

__all__ = ["encoder_note", "origin_notes", "origin_of", "patch_side", "stored_origin", "weights_of"]

_MOVED_PIXELS = 0.5


def origin_of(embedded: Embedded) -> dict[str, Any]:
    """Return what the store of an embedding says, see :func:`stored_origin`."""
    return stored_origin(embedded.origin)


def stored_origin(uns: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a store says of its checkpoint and its data, as plain values.

    Parameters
    ----------
    uns : mapping
        Of the store.

    Returns
    -------
    dict
        ``checkpoint`` (mapping), ``date``, ``model``, ``versions`` and ``sources`` (store, number of observations and
        digest of the cells) as far as they are known.
    """
    stored = uns.get("origin")
    if not isinstance(stored, Mapping):
        return {}
    found = {key: _plain(stored[key]) for key in ("checkpoint", "date", "model", "versions") if key in stored}
    return found | {"sources": _data_record(stored).get("sources", {}).get("predict", [])}


def patch_side(embedded: Embedded) -> float | None:
    """Return the longer side in pixels of the crops that were embedded; None where the store does not say."""
    settings = _data_record(embedded.origin.get("origin")).get("settings", {})
    sides = settings.get("final_yx_patch_size") if isinstance(settings, Mapping) else None
    return None if sides is None else float(max(sides))


def weights_of(uns: Mapping[str, Any]) -> str:
    """Return the digest of the weights, or of the checkpoint, that embeddings are of; "" where ``uns`` has none."""
    checkpoint = stored_origin(uns).get("checkpoint", {})
    return checkpoint.get("blake2b") or checkpoint.get("weights") or ""


def encoder_note(fitted: Any, uns: Mapping[str, Any], what: str) -> str | None:
    """Say that something was fitted on features of another encoder than it is applied to, if that is known.

    Features of two encoders have nothing in common but perhaps their number, so nothing else would show it. Two files
    with the same weights, as of the best and the last epoch, are two encoders here.

    Parameters
    ----------
    fitted : mapping
        Origin of a file: with ``weights`` (`weights_of` the embeddings), or ``data``, a list of such mappings.
    uns : mapping
        Of the embeddings that it is applied to.
    what : str
        Such as "the correction lot.npz".
    """
    data = fitted.get("data") if isinstance(fitted, Mapping) else None
    origins = [fitted, *(data if isinstance(data, list) else [])]
    known = {str(origin.get("weights") or "") for origin in origins if isinstance(origin, Mapping)} - {""}
    own = weights_of(uns)
    if not known or not own or own in known:
        return None
    encoder = stored_origin(uns)["checkpoint"].get("path") or f"weights {own}"
    return f"Warning: {what} was fitted on features of another encoder than {encoder}, of which these are."


def _data_record(stored: Any) -> Mapping[str, Any]:
    data = stored.get("data") if isinstance(stored, Mapping) else None
    return (json.loads(data) if isinstance(data, str) else data) or {}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def origin_notes(embedded: Sequence[Embedded]) -> list[str]:
    """Say in what embeddings differ that a comparison takes for equal, and in what they are equal.

    Parameters
    ----------
    embedded : sequence of Embedded

    Returns
    -------
    list of str
        For each pair: cells that only one of them has, cells of equal names at different places, stores whose cells
        have changed, stores of only one of them; and encoders that are the same.
    """
    return [note for one, other in combinations(embedded, 2) for note in _pair_notes(one, other)]


def _pair_notes(one: Embedded, other: Embedded) -> Iterator[str]:
    names = f"{one.name} and {other.name}"
    yield from _cell_notes(one, other, names)
    first, second = origin_of(one), origin_of(other)
    weights = [weights_of(each.origin) for each in (one, other)]
    if weights[0] and weights[0] == weights[1]:
        yield f"{names} are of one encoder: {first['checkpoint'].get('path') or 'equal weights'}"
    stores = [{source["store"]: source for source in origin.get("sources", [])} for origin in (first, second)]
    if not all(stores):
        return
    for store in sorted(set(stores[0]) & set(stores[1])):
        a, b = stores[0][store], stores[1][store]
        if a["digest"] != b["digest"]:
            counts = f"{a['observations']} and {b['observations']} observations"
            yield f"{names} are of different cells of {store} ({counts}): tracked again, or other wells?"
    for store in sorted(set(stores[0]) ^ set(stores[1])):
        yield f"{names}: only {one.name if store in stores[0] else other.name} has {store}"


def _cell_notes(one: Embedded, other: Embedded, names: str) -> Iterator[str]:
    columns = [*CELL, *(name for name in ("y", "x") if name in one.obs and name in other.obs)]
    both = one.obs[columns].merge(other.obs[columns], on=CELL, how="outer", indicator=True, suffixes=("_1", "_2"))
    counts = both["_merge"].value_counts()
    sides = {"left_only": one.name, "right_only": other.name}
    only = [f"{counts[side]} only {name} has" for side, name in sides.items() if counts[side]]
    if only:
        yield f"{names} are not of the same cells: {', '.join(only)}"
    if "y" in columns and "x" in columns:
        apart = np.hypot(both["y_1"] - both["y_2"], both["x_1"] - both["x_2"]) > _MOVED_PIXELS
        if apart.any():
            yield f"{names}: {apart.sum()} cells of equal names are at different places; tracked again?"
