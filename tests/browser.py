"""A headless Chromium that is asked over its own protocol (CDP), for pages that build themselves."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# The text of a page with what lies in shadow roots, which innerText leaves out.
_TEXT = """(() => {
  const seen = (node) => [...node.childNodes].map((child) =>
    child.nodeType === 3 ? child.textContent
    : child.nodeType !== 1 || ["STYLE", "SCRIPT", "TEMPLATE"].includes(child.tagName) ? ""
    : seen(child) + (child.shadowRoot ? seen(child.shadowRoot) : "")).join(" ");
  return seen(document.body);
})()"""


class Tab:
    """A page that is open.

    Args:
        socket: to its debugger.
    """

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)

    def call(self, method: str, **given: object) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": given}))
        while (answer := json.loads(self._socket.recv(timeout=60))).get("id") != number:
            pass  # an event
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def text(self) -> str:
        return str(self.call("Runtime.evaluate", expression=_TEXT)["result"].get("value", ""))

    def text_with(self, *words: str, seconds: float = 90) -> str:
        """The page's text once all of these words are in it, or when so much time is over."""
        end = time.monotonic() + seconds
        while not all(word in (text := self.text()) for word in words) and time.monotonic() < end:
            time.sleep(1)
        return text

    def count(self, selector: str) -> int:
        """How many elements there are of a kind, shadow roots included."""
        every = "(root) => [...root.querySelectorAll('*')].flatMap((e) => [e, ...(e.shadowRoot ? every(e.shadowRoot) : [])])"
        code = f"(() => {{ const every = {every}; return every(document).filter((e) => e.matches({selector!r})).length; }})()"
        return int(self.call("Runtime.evaluate", expression=code)["result"]["value"])

    def picture(self, file: Path) -> Path:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return file


@contextmanager
def opened(url: str, profile: Path, width: int = 1400, height: int = 1000) -> Iterator[Tab]:
    """The page at an address, in a browser of its own."""
    from websockets.sync.client import connect

    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={profile}",
         f"--window-size={width},{height}", url],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        told, end = profile / "DevToolsActivePort", time.monotonic() + 60
        while not (told.is_file() and told.read_text().count("\n")) and time.monotonic() < end:
            time.sleep(0.2)
        port = told.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            page = next(one for one in json.load(answer) if one["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(30)
