"""`Chunks` reads samples in litdata's file format, on this machine or in an object store."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from src.errors import UserError
from src.files.atomic import replacing
from src.files.untrusted import open_regular, read_json, shown
from src.optional_packages import needs

SCHEMES = ("s3://", "gs://", "azure://", "local:")  # local: copies from a folder (a network drive) as from a store
_MOST = 2**40  # bytes of a chunk, samples of it
_OPEN = 16  # chunks that a process keeps open
_INDEX = 256 << 20  # bytes of an index; that of a million chunks has 150 MB
_WAITS = (0, 2, 10, 30)  # seconds before each attempt to fetch a chunk: a store's short failure must not end a long run


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


class Chunks:
    """The samples of one split, by number; each is the bytes of its parts.

    `index.json` lists the chunks. A chunk is the number of its samples, where each begins and the last ends (uint32, little
    endian), and the samples; a sample is the sizes of its parts and the parts.

    Args:
        folder: with `index.json`.
        digests: of the chunk files, by name.
        remote: where chunks that are not in the folder yet come from; None where all are there.

    Attributes:
        sizes: samples of each chunk, int64 [chunks].

    Raises:
        UserError: the index is missing or damaged.
    """

    def __init__(self, folder: Path, digests: Mapping[str, str], remote: Remote | None = None) -> None:
        self.folder, self.digests, self.remote = folder, digests, remote
        self.files, sizes, self._bytes = _listed(folder / "index.json")
        self.sizes = np.array(sizes, np.int64)
        self._ends = np.cumsum(self.sizes)
        self._open = functools.lru_cache(_OPEN)(self._opened)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = functools.lru_cache(_OPEN)(self._opened)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, index: int, parts: int, only: int | None = None) -> list[bytes]:
        """A sample's parts, or only one of them.

        Raises:
            UserError: its chunk cannot be fetched, or is not the one that was written.
        """
        chunk = int(np.searchsorted(self._ends, index, side="right"))
        content, offsets = self._open(chunk)
        place = int(index - (self._ends[chunk] - self.sizes[chunk]))
        begin, end = int(offsets[place]), int(offsets[place + 1])
        if end - begin < 4 * parts:
            raise self._wrong(chunk, f"damaged (its sample {place} has {end - begin} bytes)")
        sizes = struct.unpack_from(f"<{parts}I", content, begin)
        begins = np.cumsum([begin + 4 * parts, *sizes]).tolist()
        if begins[-1] != end:
            raise self._wrong(chunk, f"damaged (the parts of its sample {place} do not fill it)")
        wanted = range(parts) if only is None else (only,)
        return [content[begins[part] : begins[part] + sizes[part]] for part in wanted]

    def _opened(self, chunk: int) -> tuple[mmap.mmap, npt.NDArray[np.uint32]]:
        name, size = self.files[chunk], self._bytes[chunk]
        file = self.folder / name
        while True:
            if self.remote is not None:
                self.remote.fetch(name, file, size, self.digests.get(name))
            try:
                with open_regular(file, links=True) as opened:
                    content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
                break
            except (OSError, ValueError) as error:
                if self.remote is not None and isinstance(error, FileNotFoundError):
                    continue  # another process made room in the cache at this moment
                raise UserError(f"{file}: this chunk cannot be read ({error}); copy the data set again") from None
        head = 4 * (int(self.sizes[chunk]) + 2)  # the count, where each sample begins, and where the last ends
        if len(content) != size or size < head or struct.unpack_from("<I", content)[0] != self.sizes[chunk]:
            raise self._wrong(chunk, f"cut off or another one ({len(content)} of {size} bytes)")
        offsets = np.frombuffer(content, np.uint32, head // 4 - 1, offset=4).copy()
        if offsets[0] < head or offsets[-1] > size or (offsets[1:] < offsets[:-1]).any():
            raise self._wrong(chunk, "damaged (its samples begin and end where they cannot)")
        return content, offsets

    def _wrong(self, chunk: int, what: str) -> UserError:
        return UserError(f"{self.folder / self.files[chunk]}: this chunk is {what}; copy it again")


def _listed(index: Path) -> tuple[list[str], list[int], list[int]]:
    """Names of the chunk files, how many samples each has, and how many bytes.

    Raises:
        UserError: the index is missing or damaged, or names what is no file in its own folder.
    """
    try:
        content = read_json(index, _INDEX, links=True)
        compression = (content.get("config") or {}).get("compression")
        listed = [(chunk["filename"], chunk["chunk_size"], chunk["chunk_bytes"]) for chunk in content["chunks"]]
    except (OSError, KeyError, TypeError, AttributeError) as error:
        reason = shown(f"{type(error).__name__}: {error}")
        raise UserError(f"{index}: is missing or damaged ({reason}); convert the data again") from None
    if compression:
        raise UserError(
            f"{index}: its chunks are compressed ({shown(str(compression))}), which is not read; convert the data "
            "again with python -m src.optimize"
        )
    for name, samples, size in listed:
        if not isinstance(name, str) or not _is_plain(name):
            raise UserError(f"{index}: names the chunk {shown(repr(name))}, which is no plain file name; refused")
        if any(type(number) is not int or not 1 <= number < _MOST for number in (samples, size)):
            raise UserError(
                f"{index}: chunk {name} should have samples and bytes, whole numbers from 1; convert the data again"
            )
    if len({name for name, *_ in listed}) < len(listed):
        raise UserError(f"{index}: names a chunk twice; convert the data again")
    return [name for name, *_ in listed], [samples for _, samples, _ in listed], [size for *_, size in listed]


def _is_plain(name: str) -> bool:
    """Whether it names a chunk in its own folder, on any system."""
    return (
        name.endswith(".bin") and name.isprintable() and len(name) <= 200 and not name.startswith(".")
        and PureWindowsPath(name).name == name and "/" not in name
    )  # fmt: skip


class _NotTheChunk(Exception):
    """What arrived has another size or digest than what was written."""


class Remote:
    """Files of one folder of an object store, fetched by litdata into a cache that all processes of a machine share.

    Args:
        url: e.g. `s3://bucket/folder`; credentials are taken from where the store's own tools take them.
        cache: where the files of all splits are kept.
        limit: bytes; beyond them the chunks that were not opened for longest are deleted.
    """

    def __init__(self, url: str, cache: Path, limit: float) -> None:
        self.url, self.cache, self.limit = url, cache, limit

    def fetch(self, name: str, file: Path, size: int, digest_of_it: str | None) -> None:
        """Sees to it that a chunk is there: whole, and with the bytes that were written.

        Raises:
            UserError: it cannot be fetched, also not after some time.
        """
        if _touched(file):
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            for attempt, wait in enumerate(_WAITS, 1):
                if _touched(file):
                    return
                time.sleep(wait)
                arrived = False
                try:
                    # no suffix: what is no chunk yet is none that room is made of
                    with contextlib.suppress(_NotTheChunk), replacing(file, tail="") as part:
                        download(f"{self.url}/{name}", part)
                        if part.stat().st_size != size or digest_of_it not in (None, digest(part)):
                            raise _NotTheChunk
                        arrived = True
                except UserError:
                    if attempt == len(_WAITS):
                        raise
                    continue
                if arrived:
                    self._make_room(file)
                    return
            raise UserError(
                f"data.root: {self.url}/{name} is not the chunk that was written; upload the data set again"
            )

    def _make_room(self, new: Path) -> None:
        kept: list[tuple[float, int, Path]] = []
        for file in self.cache.rglob("*.bin"):
            try:
                status = file.stat()
            except FileNotFoundError:
                continue
            kept.append((status.st_mtime, status.st_size, file))
        over = sum(size for _, size, _ in kept) - self.limit
        for _, size, file in sorted(kept):
            if over <= 0:
                return
            if file != new:
                file.unlink(missing_ok=True)
                over -= size


def download(url: str, file: Path) -> None:
    """One file out of an object store.

    Raises:
        UserError: it is not there, or the store cannot be reached or opened.
    """
    needs("litdata", "streaming")
    from litdata.streaming.downloader import get_downloader

    file.unlink(missing_ok=True)
    folder, _, name = url.rpartition("/")
    try:
        if url.startswith("s3://"):
            bucket, _, key = url.removeprefix("s3://").partition("/")
            _s3(os.getpid()).download_file(bucket, key, str(file))
        else:
            get_downloader(folder, str(file.parent), []).download_file(url, str(file))
        if not file.is_file():
            raise FileNotFoundError(f"there is no {name}")
    except Exception as error:  # each store's library raises its own
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise UserError(
            f"data.root: {url} cannot be fetched ({reason}); check the address, the network and the store's credentials"
        ) from None
    finally:
        Path(f"{file}.lock").unlink(missing_ok=True)


@functools.lru_cache(1)
def _s3(process: int) -> Any:
    """A client of this process's own; without credentials one for public buckets.

    litdata's would try a thousand times where there is no network, and starts threads that no forked worker can use.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    session = boto3.Session()
    unsigned = {} if session.get_credentials() else {"signature_version": UNSIGNED}
    return session.client(
        "s3", config=Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 2}, **unsigned)
    )


def _touched(file: Path) -> bool:
    """Whether the file is there; marks it as just used."""
    try:
        os.utime(file)
    except FileNotFoundError:
        return False
    return True
