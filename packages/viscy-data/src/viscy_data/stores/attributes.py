"""Attributes of a plate and of its FOVs: read, and changed together with the copies that consolidated metadata keep.

Zarr lets a group carry a copy of the documents below it (``.zmetadata`` in version 2, inside ``zarr.json`` in version
3), and readers that find the copy look no further. Whoever changes a document has to change the copies above it too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from viscy_data._documents import Documents, open_documents
from viscy_data.errors import InputError, MissingInputError
from viscy_data.stores.names import canonical_fov_name, canonical_store

__all__ = ["Group", "read_attributes", "read_group", "update_attributes", "update_attributes_of"]

_MOST_SHOWN = 60


class Group(NamedTuple):
    """Attributes of a group, and the document that holds them (the whole of it for Zarr v3)."""

    attributes: dict[str, Any]
    document_key: str
    document: dict[str, Any] | None

    @property
    def ome(self) -> dict[str, Any]:
        """OME-NGFF metadata, whatever their version."""
        return self.attributes.get("ome", self.attributes)

    @property
    def zarr_format(self) -> int:
        """2 or 3."""
        return 2 if self.document is None else 3


def read_group(documents: Documents, name: str) -> Group | None:
    """Read the attributes of a group, None when there is no such group."""
    prefix = f"{name}/" if name else ""
    document = documents.read(prefix + "zarr.json")
    if document is not None:
        group = Group(document.get("attributes", {}), prefix + "zarr.json", document)
    else:
        attributes = documents.read(prefix + ".zattrs")
        if attributes is None and documents.read(prefix + ".zgroup") is None:
            return None
        group = Group(attributes or {}, prefix + ".zattrs", None)
    for field in ("attributes", "ome"):
        value = getattr(group, field)
        if not isinstance(value, dict):
            where, found = documents.where(group.document_key), json.dumps(value)[:_MOST_SHOWN]
            raise InputError(where, field=field, found=found, expected="keys and values", fix="copy the store anew")
    return group


def read_attributes(store: str | Path, fov: str | None = None) -> dict[str, Any]:
    """Read the attributes of a plate, or of one of its FOVs.

    Returns
    -------
    dict
        Plain JSON values. OME metadata of version 0.5 stay under ``"ome"``.

    Raises
    ------
    MissingInputError
        If there is no such store or FOV.
    """
    root = canonical_store(store)
    return _existing_group(open_documents(root), root, canonical_fov_name(fov or "")).attributes


def update_attributes(store: str | Path, fov: str | None, key: str, value: Any) -> None:
    """Set one attribute of a plate (``fov=None``) or FOV and leave the others alone.

    The document is replaced in one step. ``value`` is stored as JSON: plain finite numbers, strings, lists, dicts.

    Raises
    ------
    MissingInputError
        If there is no such store or FOV.
    """
    update_attributes_of(store, key, {fov: value})


def update_attributes_of(store: str | Path, key: str, values: Mapping[str | None, Any]) -> None:
    """Set one attribute of many FOVs, and of the plate (under None); consolidated metadata are written once.

    Raises
    ------
    MissingInputError
        If there is no such store or FOV; those before it are written by then.
    """
    root = canonical_store(store)
    documents = open_documents(root)
    changed = {}
    try:
        for fov, value in values.items():
            name = canonical_fov_name(fov or "")
            group = _existing_group(documents, root, name)
            attributes = {**group.attributes, key: value}
            document = {**group.document, "attributes": attributes} if group.document else attributes
            documents.write(group.document_key, document)
            changed[name] = attributes
    finally:
        _update_copies(documents, changed)


def _existing_group(documents: Documents, root: str, name: str) -> Group:
    group = read_group(documents, name)
    if group is None:
        raise MissingInputError(f"{root}, FOV {name}" if name else root, found="no Zarr group")
    return group


def _update_copies(documents: Documents, changed: Mapping[str, dict[str, Any]]) -> None:
    """Bring the consolidated metadata of the changed groups and of all groups above them up to date."""
    holders: dict[str, list[str]] = {}
    for name in changed:
        parts = name.split("/") if name else []
        for depth in range(len(parts) + 1):
            holders.setdefault("/".join(parts[:depth]), []).append(name)
    for holder, names in holders.items():
        prefix = f"{holder}/" if holder else ""
        own = {name.removeprefix(prefix) if name != holder else "": changed[name] for name in names}
        _update_copy_v2(documents, prefix, own)
        _update_copy_v3(documents, prefix, own)


def _update_copy_v2(documents: Documents, prefix: str, changed: Mapping[str, dict[str, Any]]) -> None:
    document = documents.read(prefix + ".zmetadata")
    if document is None:
        return
    for name, attributes in changed.items():
        document["metadata"][f"{name}/.zattrs" if name else ".zattrs"] = attributes
    documents.write(prefix + ".zmetadata", document)


def _update_copy_v3(documents: Documents, prefix: str, changed: Mapping[str, dict[str, Any]]) -> None:
    document = documents.read(prefix + "zarr.json") or {}
    copies = (document.get("consolidated_metadata") or {}).get("metadata") or {}
    stale = [name for name in changed if name in copies]
    for name in stale:
        copies[name]["attributes"] = changed[name]
    if stale:
        documents.write(prefix + "zarr.json", document)
