"""`FileList` keeps a list of paths small, however long it is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


class FileList:
    """Paths below one folder, held as one buffer of bytes and the offsets in it: no Python object per file.

    A list of a million strings is a million objects, whose reference counts every loader process writes to, and so
    copies, page by page. Two arrays are shared by all of them, and a path costs its bytes and eight more.

    Args:
        root: the folder.
        paths: relative to it, in order; names that are no UTF-8 come out as they went in.
    """

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        self.root = root
        encoded = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        """The relative path."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        begin = self._ends[index - 1] if index else 0
        return os.fsdecode(self._bytes[begin : self._ends[index]].tobytes())

    def path(self, index: int) -> Path:
        return self.root / self[index]
