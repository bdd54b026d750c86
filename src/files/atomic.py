"""A file that is there whole or not at all: it is written under a temporary name beside its own, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = r"\.part-[0-9a-f]{12}"  # a name's beginning, of what a kill left half written


@contextmanager
def replacing(file: Path, tail: str | None = None) -> Iterator[Path]:
    """A path beside `file` to write to, where nothing is yet. It becomes `file` once the block has ended well; after an error
    or Ctrl-C nothing of it is left. A link at `file` is replaced, never followed. For writers that want a path.

    Args:
        tail: the temporary name's end; None for the suffix of `file`, by which many writers choose the format.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is full; it names `file`.
    """
    with naming(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        if tail is None:
            tail = ".nii.gz" if file.name.endswith(".nii.gz") else file.suffix
        # short, where the file's name may be of any length
        partial = file.with_name(f".part-{secrets.token_hex(6)}{tail}")
        try:
            yield partial
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)


def write_atomically(file: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes what must outlive a power cut, as `replacing` does, for writers that want a stream: it is on the disk before it
    gets its name, so readers see the old or the new file."""
    with replacing(file, tail="") as partial:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(partial, flags | getattr(os, "O_CLOEXEC", 0), 0o666), "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """An error of the system within it names `file`, whatever temporary name (or none) it came of."""
    try:
        yield
    except OSError as error:
        temporary = not isinstance(error.filename, str) or Path(error.filename).parent == file.parent
        if error.errno is not None and temporary:
            error.filename = str(file)
        raise
