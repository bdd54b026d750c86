"""A hub on this machine that speaks what its client needs to make a repository, push small files and fetch them."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Files = dict[str, bytes]
TOKEN = "hf_of_a_test"


class Hub(ThreadingHTTPServer):
    """
    Attributes:
        repos: commits by repository, the newest last: their files.
        made: what was asked of new repositories.
        asked: every request's method and path.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, list[Files]] = {}
        self.made: list[dict[str, object]] = []
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commits(self, repo: str) -> dict[str, Files]:
        return {commit_of(number): files for number, files in enumerate(self.repos.get(repo, []))}


def commit_of(number: int) -> str:
    return hashlib.sha1(f"commit {number}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(f"POST {self.path}")
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.made.append(asked)
            self.server.repos.setdefault(name, [])
            return self._json({"url": f"{self.server.url}/{name}", "id": name, "name": name})
        repo, _, what = path.removeprefix("/api/models/").rpartition("/main")[0].rpartition("/")
        if what == "preupload":
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for file in json.loads(body)["files"]]  # fmt: skip
            return self._json({"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        added = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        history = self.server.repos[repo]
        history.append({**(history[-1] if history else {}), **added})
        commit = commit_of(len(history) - 1)
        return self._json({"commitUrl": f"{self.server.url}/{repo}/commit/{commit}", "commitOid": commit})

    def do_HEAD(self) -> None:
        self._file()

    def do_GET(self) -> None:
        self._file()

    def _file(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        commits = self.server.commits(repo)
        commit = list(commits)[-1] if revision == "main" and commits else revision
        code = "RepoNotFound" if repo not in self.server.repos else "RevisionNotFound"
        if commit not in commits:
            return self._json({"error": code}, 404, {"X-Error-Code": code})
        if name not in commits[commit]:
            return self._json(
                {"error": "EntryNotFound"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            )
        content = commits[commit][name]
        about = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        return self._send(200, about, content)

    def _json(self, content: object, status: int = 200, about: dict[str, str] | None = None) -> None:
        self._send(status, {"Content-Type": "application/json", **(about or {})}, json.dumps(content).encode())

    def _send(self, status: int, about: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for key, value in {**about, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub that runs within the block."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
