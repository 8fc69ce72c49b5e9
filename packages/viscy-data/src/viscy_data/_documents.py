"""JSON metadata documents inside a Zarr hierarchy, on a local disk or behind a URL."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from viscy_data.errors import InputError
from viscy_data.files import replacing
from viscy_data.optional import require

__all__ = ["Documents", "is_server_problem", "kvstore_of", "open_documents", "server_problem", "write_json"]

_FORBIDDEN = ("PERMISSION_DENIED", "UNAUTHENTICATED")
_FAILED = ("ABORTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", *_FORBIDDEN)
# A person waits for metadata: a server that is not there is told in seconds. Pixels are asked for with more patience.
_RETRIES = {"max_retries": 4, "initial_delay": "100ms", "max_delay": "1s"}

_EXPECTED, _FIX = "Zarr metadata, a JSON object", "copy the store anew"


class Documents(Protocol):
    """Reads and writes small JSON objects by their key below a root."""

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the parsed object, None when there is none; InputError for what is no JSON object."""

    def write(self, key: str, document: dict[str, Any]) -> None:
        """Replace the object as a whole."""

    def where(self, key: str) -> str:
        """Return path or URL of an object, for messages."""


class LocalDocuments:
    """Documents below a folder."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def read(self, key: str) -> dict[str, Any] | None:
        try:
            text = (self._root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _parse(text, self.where(key))

    def write(self, key: str, document: dict[str, Any]) -> None:
        write_json(self._root / key, document)

    def where(self, key: str) -> str:
        return str(self._root / key)


class RemoteDocuments:
    """Documents below a URL that tensorstore can open: ``http``, ``https``, ``s3``, ``gs``, ``file``."""

    def __init__(self, url: str) -> None:
        tensorstore = require("tensorstore", extra="triplet")
        self._url = url.rstrip("/")
        retries = {f"{driver}_request_retries": _RETRIES for driver in ("http", "gcs", "s3")}
        try:
            context = tensorstore.Context(retries)
            self._store = tensorstore.KvStore.open(kvstore_of(self._url + "/"), context=context).result()
        except ValueError as err:
            expected = "a path, or a URL with http, https, s3 or gs"
            raise InputError(url, found=str(err).rpartition('": ')[2], expected=expected) from err

    def read(self, key: str) -> dict[str, Any] | None:
        try:
            found = self._store.read(key).result()
        except ValueError as err:
            if str(err).startswith(_FORBIDDEN):  # what many servers say of a file that is not there
                return None
            raise server_problem(self._url, err) from err
        return _parse(found.value, self.where(key)) if found.state == "value" else None

    def write(self, key: str, document: dict[str, Any]) -> None:
        try:
            self._store.write(key, json.dumps(document, indent=2, allow_nan=False).encode()).result()
        except (ValueError, NotImplementedError) as err:
            raise InputError(self._url, found=f"{key} cannot be written ({_said(err)})") from err

    def where(self, key: str) -> str:
        return f"{self._url}/{key}"


def kvstore_of(path: str) -> str | dict[str, Any]:
    """Return what tensorstore opens for a path or URL that ends in a slash.

    An ``s3://`` URL does not say whose server it means. As for other programs, it is Amazon's, or the one whose address
    ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` has, as MinIO, Ceph and many institutes have one.
    """
    scheme, mark, rest = path.partition("://")
    if not mark:
        return {"driver": "file", "path": path}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme != "s3" or not endpoint:
        return path
    bucket, _, key = rest.partition("/")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return {"driver": "s3", "bucket": bucket, "path": key, "endpoint": endpoint.rstrip("/"), "aws_region": region}


def is_server_problem(err: ValueError) -> bool:
    """Tell an error of the network or of a server from other errors of tensorstore."""
    return str(err).startswith(_FAILED)


def server_problem(url: str, err: ValueError) -> InputError:
    """Return the error about a server that cannot be reached, or that refuses."""
    expected, fix = "a server that can be reached", "check the address, the network and the credentials"
    return InputError(url, found=_said(err), expected=expected, fix=fix)


def _said(err: Exception) -> str:
    """Shorten what a server's error says to the cause."""
    text = str(err).split(" [")[0]
    return text.rpartition(" failed: ")[2].partition(": ")[2] or text


def _parse(text: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as err:
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
