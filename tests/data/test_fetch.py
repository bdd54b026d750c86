"""Fetching archives: from a server that breaks off, sends something else, or is not there."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.data.fetch import Archive, fetch
from src.errors import UserError


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photos/a.bin", content)
        archive.writestr("../outside", "escaped")
    return buffer.getvalue()


class Server:
    """Sends one file, at most `at_once` bytes an answer.

    Attributes:
        asked: the ranges asked for.
    """

    def __init__(self, content: bytes, at_once: int) -> None:
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.headers["Range"])
                begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                if begin >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Length", str(len(content) - begin))
                self.end_headers()
                self.wfile.write(content[begin : begin + at_once])

            def log_message(self, *arguments: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/photos.zip"


PHOTO = np.random.default_rng(0).bytes(1000)
FILE = zipped(PHOTO)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(FILE, at_once=500)
    yield server
    server.http.shutdown()


def archive(url: str, md5: str = hashlib.md5(FILE).hexdigest()) -> Archive:
    return Archive(url, md5, "photos", "images/train")


def test_a_connection_that_breaks_off_is_taken_up_where_it_was(tmp_path: Path, server: Server) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / ".photos.zip.part").write_bytes(FILE[:100])  # of a download that was killed
    fetch(root, [archive(server.url)])
    assert (root / "images/train/a.bin").read_bytes() == PHOTO
    assert server.asked == [f"bytes={begin}-" for begin in range(100, len(FILE), 500)]
    assert sorted(file.name for file in root.iterdir()) == [".download.lock", "images"]
    assert not (tmp_path / "outside").exists()
    fetch(root, [archive(server.url)])
    assert len(server.asked) == len(range(100, len(FILE), 500))  # it is there


def test_another_file_than_was_published_is_refused(tmp_path: Path, server: Server) -> None:
    with pytest.raises(
        UserError, match=r"photos\.zip could not be fetched \(what arrived is not the file that was pub"
    ):
        fetch(tmp_path, [archive(server.url, "0" * 32)])
    assert [file.name for file in tmp_path.iterdir()] == [".download.lock"]


def test_without_a_server_it_ends_at_once_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"refused.*; fetch photos\.zip elsewhere and unpack it into") as caught:
        fetch(tmp_path / "new", [archive("http://127.0.0.1:9/photos.zip")])
    assert "\n" not in str(caught.value)


def test_a_tar_file_that_would_write_elsewhere_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as content:
        content.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    root = tmp_path / "root"
    root.mkdir()
    (root / ".photos.zip.part").write_bytes(buffer.getvalue())
    server = Server(buffer.getvalue(), at_once=0)
    with pytest.raises(UserError, match=r"outside.* would be extracted .*outside the destination"):
        fetch(root, [archive(server.url, hashlib.md5(buffer.getvalue()).hexdigest())])
    server.http.shutdown()
    assert not (tmp_path / "outside").exists() and not (root / "images").exists()
