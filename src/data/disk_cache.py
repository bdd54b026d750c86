"""`OnDisk` keeps decoded samples in memory-mapped files, which all loader processes, ranks and later runs share."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from src.data.sources import DerivedSource, Source, files_of
from src.data.threads import in_order
from src.errors import UserError
from src.files.foreign_folders import find_foreign, open_to_append, open_to_write
from src.files.untrusted import inside

_VERSION = 2  # of the layout below
_FILES = frozenset({"samples.bin", "lines.bin", "about.json"})
_NAME = re.compile(r"[0-9a-f]{24}(\.part)?")  # of a cache
_ALIGNED = 64  # bytes that each sample begins at a multiple of
# One line a sample: where its image [H, W, C] begins, its type (number in _TYPES) and shape. The mask follows, whose shape
# is another where the image was resampled.
_LINE = np.dtype(
    [("begin", "<i8")] + [(n, "<i4") for n in ("type", "channels", "height", "width", "mask_height", "mask_width")]
)
_TYPES = [np.dtype(name) for name in ("uint8", "int8", "int16", "uint16", "int32", "float16", "float32", "float64")]


class OnDisk(DerivedSource):
    """A source whose decoded samples lie in a memory-mapped file, of which only the pages that are touched are read.

    The cache is a folder `<identity>/<state>` with `samples.bin`, `lines.bin` and `about.json`: the identity is the data
    set's options and the chosen samples, the state the size and time of every file, so that a file that changes makes a
    new cache (which takes the old one's place). It is built under a lock, by the first process that comes; others
    wait. It is written to `<state>.part`, which a later start goes on with after a kill, and renamed when complete.

    `folder` may be any that the user names, and what is in it someone else's: no link below it is followed, and nothing is
    removed but a cache's three files and the folder that held nothing else.

    Args:
        source: one whose samples are files, see `files_of`.
        options: tells the data set and how it is decoded; anything with a stable `repr`.
        folder: holds the caches of all data sets.

    Raises:
        UserError: a sample cannot be read, the source's samples are no files, the disk is full, or a cache is none of ours.
    """

    def __init__(self, source: Source, options: object, folder: Path) -> None:
        super().__init__(source)
        self._length = len(source)
        about = {"version": _VERSION, "options": repr(options), "split": source.split, "samples": len(source)}
        chosen = [source.name(i) for i in np.linspace(0, len(source) - 1, 32).astype(int).tolist()]
        identity = _digest([*about.items(), chosen])
        self._folder = folder / identity / _state(source)
        place = inside(folder, identity)
        inside(folder, f"{identity}/{self._folder.name}")
        if not self._folder.is_dir():
            with _disk_errors(folder):
                place.mkdir(parents=True, exist_ok=True)
                with FileLock(inside(folder, f"{identity}/lock")):
                    if not self._folder.is_dir():
                        _build(source, self._folder, about)
        self._check()

    def __len__(self) -> int:
        return self._length

    def _check(self) -> None:
        """That the cache's files are files, and as many lines as samples."""
        if found := find_foreign(self._folder):
            raise UserError(f"data.cache_dir: {found[0]} is {found[1]}; remove {self._folder}, or give another folder")
        try:
            whole = (self._folder / "lines.bin").stat().st_size == len(self) * _LINE.itemsize
        except OSError:
            whole = False
        if not whole:
            raise self._damaged()

    def _damaged(self) -> UserError:
        return UserError(f"data.cache_dir: the cache {self._folder} is damaged; remove it, and it is made anew")

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_bytes", "_lines")}

    # Private copy on write: read-only pages are shared, and what writes into a sample changes it for itself alone.
    @functools.cached_property
    def _bytes(self) -> npt.NDArray[np.uint8]:
        return np.memmap(self._folder / "samples.bin", np.uint8, mode="c")

    @functools.cached_property
    def _lines(self) -> npt.NDArray[np.generic]:
        return np.memmap(self._folder / "lines.bin", _LINE, mode="r")

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        begin, number, channels, height, width, mask_height, mask_width = self._lines[index].item()
        sides = min(channels, height, width, mask_height, mask_width)
        if begin < 0 or sides < 1 or not 0 <= number < len(_TYPES):
            raise self._damaged()
        dtype = _TYPES[number]
        between = begin + channels * height * width * dtype.itemsize
        if between + mask_height * mask_width > len(self._bytes):
            raise self._damaged()
        image = self._bytes[begin:between].view(dtype).reshape(height, width, channels)
        mask = self._bytes[between : between + mask_height * mask_width].reshape(mask_height, mask_width)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)


def _build(source: Source, complete: Path, about: dict[str, object]) -> None:
    """Writes the cache, from where an earlier start was killed, if it was; removes those of files as they were before."""
    from rich.progress import track

    place = complete.parent
    part = place / f"{complete.name}.part"
    for old in place.iterdir():
        if old != part:
            _remove(old)
    with (
        open_to_append(place, f"{part.name}/lines.bin") as lines,
        open_to_append(place, f"{part.name}/samples.bin") as samples,
    ):
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
    with open_to_write(place, f"{part.name}/about.json") as described:
        described.write(json.dumps(about).encode())
    part.rename(complete)


def _remove(old: Path) -> None:
    """Removes a cache; a link, and a folder that is called otherwise or holds anything else, is not ours and stays."""
    if old.is_symlink() or not old.is_dir() or not _NAME.fullmatch(old.name):
        return
    with contextlib.suppress(OSError):  # of a file that another machine has open
        if {file.name for file in old.iterdir()} <= _FILES and find_foreign(old) is None:
            for name in _FILES:
                (old / name).unlink(missing_ok=True)
            old.rmdir()


def _written(lines: Any, samples: Any) -> tuple[int, int]:
    """Samples that an earlier start has written whole, and where the last of them ends; what follows is cut off."""
    lines.seek(0)
    content = lines.read()
    table = np.frombuffer(content, _LINE, len(content) // _LINE.itemsize)
    pixels = table["height"].astype(np.int64) * table["width"]
    known = table["type"].clip(0, len(_TYPES) - 1)
    itemsize = np.array([dtype.itemsize for dtype in _TYPES])[known]
    of_mask = table["mask_height"].astype(np.int64) * table["mask_width"]
    ends = table["begin"] + pixels * table["channels"] * itemsize + of_mask
    after = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    sides = np.min([table[n] for n in ("height", "width", "channels", "mask_height", "mask_width")], axis=0)
    whole = (known == table["type"]) & (sides > 0) & (table["begin"] >= after) & (ends > table["begin"])
    whole &= ends <= samples.seek(0, os.SEEK_END)
    done = len(whole) if whole.all() else int(whole.argmin())
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


def _digest(parts: list[object]) -> str:
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
