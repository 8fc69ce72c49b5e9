"""A web server on this machine's loopback that serves a folder, as object stores do: byte ranges, no listing needed.

>>> import tempfile, urllib.request
>>> from pathlib import Path
>>> folder = Path(tempfile.mkdtemp())
>>> _ = (folder / "a.txt").write_text("0123456789")
>>> with served(folder) as url:
...     part = urllib.request.Request(f"{url}/a.txt", headers={"Range": "bytes=2-4"})
...     urllib.request.urlopen(part).read()
b'234'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

__all__ = ["served"]

_VERSION = {"ETag": '"1"', "x-goog-generation": "1"}
_GOOGLE = "/storage/v1/b/bucket/o/"


@contextmanager
def served(folder: str | Path, fault: Callable[[str], int | None] | None = None) -> Iterator[str]:
    """Serve the files of a folder and yield the address.

    They are served at their paths, and as the objects of a bucket ``bucket`` of Google's storage
    (``TENSORSTORE_GCS_HTTP_URL`` tells tensorstore the address). What is below ``forbidden/`` is forbidden.

    Parameters
    ----------
    folder : str or Path
    fault : callable, optional
        Called with the path of every request: it may wait, return a status to answer with, or 0 to hang up.
    """
    root = Path(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            name = unquote(self.path.partition("?")[0].removeprefix(_GOOGLE)).strip("/")
            status = None if fault is None else fault(name)
            if status == 0:
                self.close_connection = True
            elif status is not None:
                self._answer(status)
            elif name.startswith("forbidden/"):
                self._answer(403)
            elif not (root / name).is_file():
                self._answer(404)
            else:
                self._answer(200, (root / name).read_bytes())

        def _answer(self, status: int, content: bytes = b"") -> None:
            wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            size, headers = len(content), {}
            if status == 200 and wanted is not None:
                first, last = wanted.groups()
                start = int(first) if first else max(0, size - int(last))
                end = min(size, int(last) + 1) if first and last else size
                status, content = 206, content[start:end]
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            self.send_response(status)
            for name, value in (_VERSION | headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
