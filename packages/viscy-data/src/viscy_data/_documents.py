"""JSON metadata documents inside a Zarr hierarchy, on a local disk or behind a URL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from viscy_data.errors import InputError
from viscy_data.files import replacing
from viscy_data.optional import require

__all__ = ["Documents", "open_documents", "write_json"]

_EXPECTED, _FIX = "Zarr metadata, a JSON object", "copy the store anew"


class Documents(Protocol):
    """Reads and writes small JSON objects by their key below a root."""

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the parsed object, None when there is none; InputError for what is no JSON object."""

    def write(self, key: str, document: dict[str, Any]) -> None:
        """Replace the object as a whole."""


class LocalDocuments:
    """Documents below a folder."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def read(self, key: str) -> dict[str, Any] | None:
        try:
            text = (self._root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _parse(text, str(self._root / key))

    def write(self, key: str, document: dict[str, Any]) -> None:
        write_json(self._root / key, document)


class RemoteDocuments:
    """Documents below a URL that tensorstore can open."""

    def __init__(self, url: str) -> None:
        tensorstore = require("tensorstore", extra="triplet")
        self._url = url.rstrip("/")
        self._store = tensorstore.KvStore.open(self._url + "/").result()

    def read(self, key: str) -> dict[str, Any] | None:
        found = self._store.read(key).result()
        return _parse(found.value, f"{self._url}/{key}") if found.state == "value" else None

    def write(self, key: str, document: dict[str, Any]) -> None:
        self._store.write(key, json.dumps(document, indent=2, allow_nan=False).encode()).result()


def _parse(text: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as err:
        raise InputError(where, found=f"no JSON ({err})", expected=_EXPECTED, fix=_FIX) from err
    if not isinstance(document, dict):
        raise InputError(where, found=f"a {type(document).__name__}", expected=_EXPECTED, fix=_FIX)
    return document


def open_documents(root: str) -> Documents:
    """Choose the reader by the form of the root: a path or a URL."""
    return RemoteDocuments(root) if "://" in root else LocalDocuments(root)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write beside the place and rename, so that no reader ever sees half a document."""
    text = json.dumps(document, indent=2, allow_nan=False)
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
