"""Writing into a folder that may be a stranger's: no link is followed in it, and nothing but a regular file is opened."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from src.errors import UserError
from src.files.untrusted import AT_ONCE, inside, link_refused


def open_to_append(folder: Path, name: str) -> BinaryIO:
    """The file `name` below a folder that may be a stranger's, opened to read it and to write at its end; made where there is
    none, with the folders on the way.

    Raises:
        UserError: it, or a folder on the way, is a link, or it is no regular file, or it cannot be written.
    """
    return _open_to_write(inside(folder, name), os.O_RDWR | os.O_APPEND, "a+b")


def open_to_write(folder: Path, name: str) -> BinaryIO:
    """The file `name` below a folder that may be a stranger's, opened anew to write; made as in `open_to_append`."""
    stream = _open_to_write(inside(folder, name), os.O_WRONLY, "wb")
    stream.truncate()
    return stream


def find_foreign(
    folder: Path, parts: Sequence[str] | None = None, skipped: Sequence[str] = ()
) -> tuple[Path, str] | None:
    """The first thing below a folder that is neither a regular file nor a folder, and what it is: nothing is followed.

    Args:
        parts: look only at these names in the folder, and at what is below them; None for all.
        skipped: names that are left out wherever they are.
    """
    todo = [folder]
    while todo:
        at = todo.pop()
        try:
            entries = sorted(os.scandir(at), key=lambda entry: entry.name)
        except OSError:  # not there, or not ours to read: nothing of it is opened either
            continue
        for entry in entries:
            if entry.name in skipped or (at == folder and parts is not None and entry.name not in parts):
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                return Path(entry.path), _kind(entry.stat(follow_symlinks=False).st_mode)
    return None


def _open_to_write(file: Path, flags: int, mode: str) -> BinaryIO:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, flags | os.O_CREAT | AT_ONCE | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise link_refused(file) from None
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{file}: cannot be written ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{file}: is {_kind(file.lstat().st_mode)}; refused")
    return os.fdopen(descriptor, mode)  # type: ignore[return-value]


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device, a socket or the like"
