"""Decoded samples in memory-mapped files: decoded once, shared by all loader processes, ranks and later runs."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from src.data.dataset import Derived, Source, files_of
from src.data.parallel import in_order
from src.errors import UserError

_VERSION = 2  # of the layout below
_ALIGNED = 64  # bytes that each sample begins at a multiple of
# One line a sample: where its image [H, W, C] begins, its type (number in _TYPES) and shape. The mask follows, whose shape
# is another where the image was resampled.
_LINE = np.dtype(
    [("begin", "<i8")] + [(n, "<i4") for n in ("type", "channels", "height", "width", "mask_height", "mask_width")]
)
_TYPES = [np.dtype(name) for name in ("uint8", "int8", "int16", "uint16", "int32", "float16", "float32", "float64")]


class OnDisk(Derived):
    """A source whose decoded samples lie in a memory-mapped file, of which only the pages that are touched are read.

    The cache is a folder `<identity>/<state>` with `samples.bin`, `lines.bin` and `about.json`: the identity is the data
    set's options and the chosen samples, the state the size and time of every file, so that a file that changes makes a
    new cache (which takes the old one's place). It is built under a lock, by the first process that comes; others
    wait. It is written to `<state>.part`, which a later start goes on with after a kill, and renamed when complete.

    Args:
        source: one whose samples are files, see `files_of`.
        options: tells the data set and how it is decoded; anything with a stable `repr`.
        folder: holds the caches of all data sets.

    Raises:
        UserError: a sample cannot be read, the source's samples are no files, or the disk is full.
    """

    def __init__(self, source: Source, options: Any, folder: Path) -> None:
        super().__init__(source)
        self._length = len(source)
        about = {"version": _VERSION, "options": repr(options), "split": source.split, "samples": len(source)}
        chosen = [source.name(i) for i in np.linspace(0, len(source) - 1, 32).astype(int).tolist()]
        place = folder / _digest([*about.items(), chosen])
        self._folder = place / _state(source)
        if not self._folder.is_dir():
            with _disk_errors(folder):
                place.mkdir(parents=True, exist_ok=True)
                with FileLock(place / "lock"):
                    if not self._folder.is_dir():
                        _build(source, self._folder, about)

    def __len__(self) -> int:
        return self._length

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_bytes", "_lines")}

    # Private copy on write: read-only pages are shared, and what writes into a sample changes it for itself alone.
    @functools.cached_property
    def _bytes(self) -> npt.NDArray[np.uint8]:
        return np.memmap(self._folder / "samples.bin", np.uint8, mode="c")

    @functools.cached_property
    def _lines(self) -> npt.NDArray[Any]:
        return np.memmap(self._folder / "lines.bin", _LINE, mode="r")

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        begin, number, channels, height, width, mask_height, mask_width = self._lines[index].item()
        dtype = _TYPES[number]
        between = begin + channels * height * width * dtype.itemsize
        image = self._bytes[begin:between].view(dtype).reshape(height, width, channels)
        mask = self._bytes[between : between + mask_height * mask_width].reshape(mask_height, mask_width)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)


def _build(source: Source, complete: Path, about: dict[str, Any]) -> None:
    """Writes the cache, from where an earlier start was killed, if it was; removes those of files as they were before."""
    from rich.progress import track

    part = complete.with_name(complete.name + ".part")
    for old in complete.parent.iterdir():
        if old.is_dir() and old != part:
            shutil.rmtree(old, ignore_errors=True)
    part.mkdir(exist_ok=True)
    with (part / "lines.bin").open("a+b") as lines, (part / "samples.bin").open("a+b") as samples:
        done, end = _written(lines, samples)
        rest = range(done, len(source))
        read = track(
            in_order(source.read, rest), f"caching {source.split} in {complete.parent.parent}", len(source), done,
            transient=True,
        )  # fmt: skip
        for image, mask in read:
            pixels, classes = image.permute(1, 2, 0).contiguous().numpy(), mask.contiguous().numpy()
            begin = -(-end // _ALIGNED) * _ALIGNED
            samples.write(bytes(begin - end) + pixels.tobytes() + classes.tobytes())
            end = begin + pixels.nbytes + classes.nbytes
            lines.write(np.array([(begin, _TYPES.index(pixels.dtype), *image.shape, *mask.shape)], _LINE).tobytes())
        for file in (samples, lines):
            file.flush()
            os.fsync(file.fileno())
    (part / "about.json").write_text(json.dumps(about))
    part.rename(complete)


def _written(lines: Any, samples: Any) -> tuple[int, int]:
    """Samples that an earlier start has written whole, and where the last of them ends; what follows is cut off."""
    lines.seek(0)
    content = lines.read()
    table = np.frombuffer(content, _LINE, len(content) // _LINE.itemsize)
    pixels = table["height"].astype(np.int64) * table["width"]
    itemsize = np.array([dtype.itemsize for dtype in _TYPES])[table["type"]]
    ends = (
        table["begin"]
        + pixels * table["channels"] * itemsize
        + table["mask_height"].astype(np.int64) * table["mask_width"]
    )
    done = int(np.searchsorted(ends, samples.seek(0, os.SEEK_END), side="right"))
    end = int(ends[done - 1]) if done else 0
    lines.truncate(done * _LINE.itemsize)
    samples.truncate(end)
    return done, end


def _state(source: Source) -> str:
    """Changes with every sample's name, and every file's path, size and time of change."""
    digest = hashlib.sha256()
    stat = functools.lru_cache(maxsize=4096)(os.stat)  # slices of one volume share its file
    for index in range(len(source)):
        digest.update(source.name(index).encode("utf-8", "surrogateescape"))
        files = files_of(source, index)
        if files is None:
            raise UserError(
                "data.cache: disk is for samples that are files, these are made or cut out of larger ones; take ram or null"
            )
        for file in files:
            try:
                found = stat(file)
            except OSError as error:
                raise UserError(f"{file}: cannot be read ({error.strerror}); replace or remove it") from None
            digest.update(f"\0{file}\0{found.st_size}\0{found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:24]


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:24]


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"data.cache_dir: the disk of {folder} is full; make room, give another folder, or leave data.cache=null"
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
            raise UserError(
                f"data.cache_dir: {folder} cannot be written ({error.strerror}); give another folder"
            ) from None
        raise
