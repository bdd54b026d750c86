"""`fetch` downloads archives of data sets: goes on where it stopped, checks them, unpacks them as a whole."""

from __future__ import annotations

import functools
import hashlib
import inspect
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock
from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from src.errors import UserError

T = TypeVar("T")
_TIMEOUT = 20  # seconds without a byte
_ATTEMPTS = 4  # in a row that bring nothing
_BLOCK = 1 << 20


class Archive(NamedTuple):
    """A `.zip` or `.tar` file, its MD5 sum, the folder in it that is wanted, and where that belongs below the root."""

    url: str
    md5: str
    inside: str
    place: str


def fetching(make: Callable[..., T], root: str | None, download: bool) -> Callable[..., T]:
    """What makes the splits of a data set, with its folder where it has one; `download` fetches it where it is missing.

    Raises:
        UserError: it cannot be fetched.
    """
    given: dict[str, object] = {} if root is None else {"root": root}
    if download:
        if "download" not in inspect.signature(make).parameters:
            raise UserError(
                "data.download: this data set cannot be fetched; its file in conf/data/ says where to get it"
            )
        given["download"] = True
    return functools.partial(make, **given) if given else make


def fetch(root: Path, archives: list[Archive]) -> None:
    """Fetches and unpacks what is not there yet; one process does it, others on the machine wait.

    What was fetched before an interruption is kept beside the root's folders as `.NAME.part` and gone on with.

    Raises:
        UserError: no network, a server's error, another file than was published, or a full disk.
    """
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".download.lock"):
        for archive in archives:
            if (root / archive.place).exists():
                continue
            name = archive.url.rpartition("/")[2]
            part, unpacked = root / f".{name}.part", root / f".{name}.unpacked"
            try:
                _download(archive.url, part)
                if _md5(part) != archive.md5:
                    part.unlink()
                    raise OSError("what arrived is not the file that was published")
                shutil.rmtree(unpacked, ignore_errors=True)
                _unpack(part, unpacked)
                (root / archive.place).parent.mkdir(parents=True, exist_ok=True)
                (unpacked / archive.inside).replace(root / archive.place)
                part.unlink()
            except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
                raise UserError(
                    f"data.download: {archive.url} could not be fetched ({reason}); fetch {name} elsewhere and unpack it "
                    f"into {root}"
                ) from None
            finally:
                shutil.rmtree(unpacked, ignore_errors=True)


def _download(url: str, part: Path) -> None:
    """Appends to `part` until it is whole; a connection that breaks off is taken up again."""
    fruitless = 0
    columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task(url.rpartition("/")[2], total=None)
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                request = Request(url, headers={"Range": f"bytes={before}-"})
                with urlopen(request, timeout=_TIMEOUT) as answer:
                    goes_on = answer.status == 206
                    whole = int(answer.headers.get("Content-Length") or 0) + (before if goes_on else 0)
                    progress.update(task, total=whole or None, completed=before if goes_on else 0)
                    with part.open("ab" if goes_on else "wb") as file:
                        while block := answer.read(_BLOCK):
                            file.write(block)
                            progress.advance(task, len(block))
                if part.stat().st_size >= whole:
                    return
                error: OSError = OSError("the connection broke off")
            except HTTPError as refused:
                if refused.code == 416 and before:  # nothing is left to be sent
                    return
                raise
            except OSError as broken:
                error = broken
            fruitless = 0 if part.exists() and part.stat().st_size > before else fruitless + 1
            if fruitless == (_ATTEMPTS if before else 1):
                raise error


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(archive: Path, folder: Path) -> None:
    """Nothing leaves the folder: shutil skips what has `..` or a root in a zip, tarfile's data filter refuses it."""
    if zipfile.is_zipfile(archive):
        shutil.unpack_archive(archive, folder, format="zip")
    else:
        with tarfile.open(archive) as members:
            members.extractall(folder, filter="data")
