"""Standard output and error that can break (a reader that is gone, a full disk, closed from the start) without ending what
is being done: what was to be printed is lost, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


class Steady(io.TextIOBase):
    """A text stream that goes on in silence once the one behind it cannot be written.

    Attributes:
        lost: why it cannot; None while it can.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | ValueError | None = None
        if isinstance(stream, io.TextIOWrapper):  # an ASCII terminal has no dash for a table
            stream.reconfigure(errors="backslashreplace")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.lost is None and self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def buffer(self) -> object:
        return self._stream.buffer

    def write(self, text: str) -> int:
        if self.lost is None:
            try:
                return self._stream.write(text)
            except (OSError, ValueError) as error:  # the latter where it was closed since
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:  # the latter where it was closed since
                self._lose(error)

    def _lose(self, error: OSError | ValueError) -> None:
        """What libraries and processes that this one starts write to the same descriptor goes nowhere either."""
        self.lost = error
        with contextlib.suppress(OSError, ValueError):
            _point_to_nothing(self._stream.fileno())
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()  # what is left in its buffer, or the interpreter would fail over it at its end


@contextlib.contextmanager
def steady() -> Iterator[tuple[Steady, Steady]]:
    """Within it `sys.stdout` and `sys.stderr` are steady. Those that were closed from the start lead nowhere; their
    descriptors are taken, or the next file that is opened would get what a library prints."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _point_to_nothing(descriptor)
    before = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nothing:
        out, err = (Steady(stream or nothing) for stream in before)
        sys.stdout, sys.stderr = out, err
        try:
            yield out, err
        finally:
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before


def was_read(out: Steady) -> bool:
    """Whether all that was printed arrived, or its reader has just had enough of it (`| head`)."""
    return not isinstance(out.lost, OSError) or out.lost.errno == errno.EPIPE


def _point_to_nothing(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != descriptor:
        os.dup2(nothing, descriptor)
        os.close(nothing)
