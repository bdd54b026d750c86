"""Tells a split of a data set from one that has changed: names, sizes, and hashes of files or, where samples are made or cut
out of something larger, of samples as they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from src.data.sources import Chunked, Source, files_of, innermost
from src.errors import UserError
from src.files.untrusted import open_regular
from src.seeding import derive

How = Literal["auto", "all"] | int
_BYTES = 256 << 20  # that `auto` hashes of a split
_FILES = 5000
_NAMED = 200_000  # samples, evenly spread, whose names and sizes count
_SAMPLES, _SAMPLES_OF_CHUNKS = 64, 8  # that `auto` reads where there are no files of their own
_BLOCK = 1 << 20


class Stopped(Exception):
    """The rest is not wanted any more."""


@dataclass
class Print:
    """What is told of a split; see `src.provenance.record.Fingerprint`."""

    of: Literal["files", "samples"]
    samples: int
    names: str
    files: int | None = None
    bytes: int | None = None
    sizes: str | None = None
    hashed: dict[str, tuple[int, str]] = field(default_factory=dict)


def fingerprint(
    source: Source, root: str | None, how: How = "auto", wanted: Collection[str] | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> Print:  # fmt: skip
    """The fingerprint of a split, as a whole: also of what of it is unlabelled or left out by `data.limit`.

    Args:
        root: `data.root`, from which files are named.
        how: "all" hashes everything, a number so many samples, drawn by their names; "auto" draws files up to 256 MiB and
            5000, or 64 samples (8 of data in chunks) where they have no files of their own.
        wanted: hash just these instead, as far as they are there.
        go_on: asked between files and blocks.

    Raises:
        Stopped: `go_on` said no.
        UserError: a sample cannot be read.
    """
    at = innermost(source)
    picked = range(0, len(at), 1 if how == "all" else max(1, len(at) // _NAMED))
    names = hashlib.sha256()
    for index in picked:
        _ask(go_on)
        names.update(f"{at.name(index)}\n".encode(errors="replace"))
    has_files = len(at) > 0 and files_of(at, 0) is not None
    found = Print("files" if has_files else "samples", len(at), names.hexdigest())
    order = sorted(picked, key=lambda index: derive(0, "fingerprint", at.name(index)))
    if has_files:
        _of_files(at, root, how, wanted, order, found, go_on)
        return found
    most = {"all": len(at), "auto": _SAMPLES_OF_CHUNKS if isinstance(innermost(at), Chunked) else _SAMPLES}
    for index in order if wanted is not None else order[: most[how] if isinstance(how, str) else how]:
        if wanted is None or at.name(index) in wanted:
            _ask(go_on)
            found.hashed[at.name(index)] = _of_sample(at, index)
    return found


def _of_files(
    source: Source, root: str | None, how: How, wanted: Collection[str] | None, order: list[int], found: Print,
    go_on: Callable[[], bool],
) -> None:  # fmt: skip
    sizes: dict[str, int] = {}
    for index in order:
        for name, file in _named(source, index, root):
            _ask(go_on)
            sizes[name] = _size(file)
    found.files, found.bytes = len(sizes), sum(max(size, 0) for size in sizes.values())
    found.sizes = hashlib.sha256(
        "\n".join(f"{n} {sizes[n]}" for n in sorted(sizes)).encode(errors="replace")
    ).hexdigest()
    total = 0
    for index in order[:how] if isinstance(how, int) and wanted is None else order:
        for name, file in _named(source, index, root):
            if name in found.hashed or (wanted is not None and name not in wanted):
                continue
            total += max(sizes[name], 0)
            if wanted is None and how == "auto" and found.hashed and (total > _BYTES or len(found.hashed) >= _FILES):
                return
            found.hashed[name] = (sizes[name], _hash(file, go_on))


def _named(source: Source, index: int, root: str | None) -> Iterator[tuple[str, Path]]:
    """The files of a sample, by their paths in the root; one elsewhere by the sample's name and its own."""
    roots = [] if root is None or "://" in root else [Path(root).expanduser(), Path(root).expanduser().resolve()]
    for file in files_of(source, index) or ():
        base = next((one for one in roots if file.is_relative_to(one)), None)
        yield (file.relative_to(base).as_posix() if base else f"{source.name(index)}: {file.name}"), file


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _hash(file: Path, go_on: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    try:
        with open_regular(file, links=True) as stream:
            while block := stream.read(_BLOCK):
                _ask(go_on)
                digest.update(block)
    except (OSError, UserError):
        return "0" * 64
    return digest.hexdigest()


def _of_sample(source: Source, index: int) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    for tensor in source.read(index):
        values = tensor.contiguous().numpy()
        digest.update(f"{values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
        size += values.nbytes
    return size, digest.hexdigest()


def _ask(go_on: Callable[[], bool]) -> None:
    if not go_on():
        raise Stopped
