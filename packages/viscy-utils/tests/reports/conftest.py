"""A browser for pages: Chromium without a window, spoken to over a pipe by the DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# The page needs the extra ``report``.
_NEEDED = ("plotly", "PIL", "sklearn", "matplotlib", "anndata")
collect_ignore = [] if all(map(find_spec, _NEEDED)) else ["test_html.py"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Chromium reads commands from descriptor 3 and answers on 4; Python hands ours over before it becomes Chromium.
_HAND_OVER = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, place in zip(ends, (3, 4)):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """A page in a browser of its own."""

    def __init__(self, browser: str, profile: Path, path: Path, width: int, height: int) -> None:
        (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
        flags = ("--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--enable-unsafe-swiftshader")
        command = [sys.executable, "-c", _HAND_OVER, str(their_in), str(their_out), browser, *flags]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(their_in, their_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(their_in)
        os.close(their_out)
        self._out, self._in = os.fdopen(our_out, "wb", 0), os.fdopen(our_in, "rb", 0)
        self._numbers, self._rest, self._session = itertools.count(1), b"", None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("document.body && document.body.dataset.drawn")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; what happens in between is kept in ``events``."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = self._in.read(1 << 16)
            assert part, "the browser has ended"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def value(self, expression: str) -> Any:
        """Evaluate an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression holds."""
        end = time.monotonic() + seconds
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < end, f"{expression} does not hold after {seconds} s"
            time.sleep(0.05)

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def point_at(self, x: float, y: float) -> None:
        """Move the pointer, as a hand does: over places on the way."""
        for step in (-2, 0):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + step, y=y)
            self.value("new Promise((done) => setTimeout(done, 60))")

    def screenshot(self, path: Path) -> None:
        """Keep what is seen as a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def requests(self) -> list[str]:
        """List what the page has asked for so far, but for itself and what it holds."""
        urls = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("data:", "blob:", "file:"))]

    def errors(self) -> list[Any]:
        """List uncaught errors and what the browser has refused so far."""
        thrown = [e["params"] for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        logged = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        return thrown + [entry for entry in logged if entry["level"] == "error"]

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(20)
        self._out.close()
        self._in.close()


@pytest.fixture
def open_page(tmp_path) -> Callable[..., Page]:
    """Return a function that opens a file in a browser."""
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    if browser is None or sys.platform == "win32":
        pytest.skip("no Chromium or Chrome to open pages with")
    opened = []

    def opening(path: Path, width: int = 1280, height: int = 1000) -> Page:
        opened.append(Page(browser, tmp_path / f"profile{len(opened)}", path, width, height))
        return opened[-1]

    yield opening
    for page in opened:
        page.close()
