"""Finds the files (or folders) below a data set's root that a pattern fits, each by the name that pairs it with others."""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from src.data.layout import not_read
from src.data.layout.exports import contents
from src.data.readers.images import JPEG_SUFFIXES, MASK_SUFFIXES
from src.errors import UserError

# The path of what may be an item, and what its name is made of when the path is cut off at a place.
_Candidate = tuple[str, Callable[[str, int], list[str]]]
_LOOKED_AT = 1000  # files, where none fits
_WILDCARDS = re.compile(r"(\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]]*\])")
_CAPTURES = {"**/": "((?:[^/]+/)*)", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}


@dataclass(frozen=True)
class Items:
    """What is looked for, and how it is named.

    Attributes:
        suffixes: with dots, in small letters; the one that an item has is no part of its name.
        is_item: whether a path is one; None takes each file that has a suffix, without a look at it, which for each of a
            million costs minutes.
        tail: what names end with in front of the suffix, which is no part of them either.
        flat: whether a name has a place for each wildcard, with `_` between them, so that it is a file's name too; else it
            is the path that they make.
        what: for messages; "" for the suffixes.
    """

    suffixes: tuple[str, ...]
    is_item: Callable[[Path], bool] | None = None
    tail: str = ""
    flat: bool = False
    what: str = ""

    def end(self, root: Path, path: str) -> int | None:
        """Where the name ends in the path of an item, relative to the root; None where it is none."""
        suffix = self._suffix(path)
        found = suffix != "" if self.is_item is None else self.is_item(root / path)
        if not found:
            return None
        end = len(path) - len(suffix)
        return end - len(self.tail) if path.endswith(self.tail, 0, end) else None

    def name(self, path: str, end: int, parts: Callable[[str, int], list[str]]) -> str:
        """The name made of what the wildcards stand for in a path, of which `end` is where its suffix begins."""
        if self.flat:
            name = "_".join(parts(path, len(path)))
            name = name[: len(name) - len(self._suffix(name))]
        else:
            name = "/".join(filter(None, parts(path, end)))
        return unicodedata.normalize("NFC", name)  # macOS writes accents apart from their letters

    @functools.cached_property
    def _by_last_part(self) -> dict[str, list[str]]:
        """Suffixes, the longest first, by what follows their last dot: a million paths are looked up in a second."""
        found: dict[str, list[str]] = {}
        for suffix in sorted(self.suffixes, key=len, reverse=True):
            found.setdefault(suffix.rpartition(".")[2], []).append(suffix)
        return found

    def _suffix(self, path: str) -> str:
        for suffix in self._by_last_part.get(path[path.rfind(".") + 1 :].lower(), ()):
            if path.lower().endswith(suffix):
                return suffix
        return ""

    def __str__(self) -> str:
        what = self.what or f"{' or '.join(self.suffixes)} files"
        return f"{what} whose names end with {self.tail}" if self.tail else what


def existing(root: str) -> Path:
    """The data set's folder.

    Raises:
        UserError: there is none.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"data.root: there is no folder {folder}; give the data set's folder as data.root=…")
    return folder


def find(root: Path, pattern: str, items: Items) -> dict[str, str]:
    """Items by name, relative to `root`, of a folder or a glob pattern (`*`, `?`, `[…]`, and `**` for folders at any depth).

    Of a folder, items are named after their files; where it has none itself, those of the folders below it are taken, whose
    names begin with those folders'. Of a pattern, what its wildcards stand for is the name. What lies there under the very
    name that a pattern (or its first folders) has is no wildcard.

    Raises:
        UserError: the folder is missing, nothing is found, or two items have one name.
    """
    folder = (root / pattern).is_dir() and (items.is_item is None or not items.is_item(root / pattern))
    if folder:
        start = pattern.rstrip("/") or "."
        found = _by_name(root, _in_folder(root, start), items) or _by_name(root, _below(root, start), items)
    else:
        found = _by_name(root, _fitting(root, pattern), items)
    if found:
        return found
    if not folder and not is_glob(root, pattern):
        raise UserError(
            f"data.root: {root / pattern} is missing; check data.root and the data set's layout ({root} has {contents(root)}), "
            "or say where they lie: data.dataset.images=… data.dataset.masks=…"
        )
    reason = not_read.found_instead(_around(root, pattern)) or f"; the split is empty{_there(root, pattern, items)}"
    raise UserError(f"{root / pattern}: no {items}{reason}")


def is_glob(root: Path, pattern: str) -> bool:
    """Whether a pattern has wildcards, and is not what something in the root is called."""
    return _called_so(root, pattern) < len(pattern.split("/"))


def exists(root: Path, pattern: str) -> bool:
    """Whether there is such a file or folder, or anything that the glob pattern fits."""
    return next(glob.iglob(_escaped(root, pattern), root_dir=root, recursive=True), None) is not None


def split_folder(root: Path, images: str, split: str) -> str:
    """The split whose folder is read: "val" for "test" where no test folder of `images` exists."""
    parts = images.split("/")
    upto = next(i for i, part in enumerate(parts) if "{split}" in part) + 1
    there = exists(root, "/".join(parts[:upto]).replace("{split}", "test"))
    return "val" if split == "test" and not there else split


def _by_name(root: Path, candidates: Iterable[_Candidate], items: Items) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, parts in candidates:
        if (end := items.end(root, path)) is None:
            continue
        name = items.name(path, end, parts)
        if name in found:
            first, second = sorted([found[name], path])
            raise UserError(f"{root / second}: has the same name as {first.rpartition('/')[2]}; keep one of them")
        found[name] = path
    return found


def _in_folder(root: Path, folder: str) -> Iterator[_Candidate]:
    def parts(path: str, end: int) -> list[str]:
        return [path[len(folder) + 1 : end]]

    with os.scandir(root / folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                yield f"{folder}/{entry.name}", parts


def _below(root: Path, folder: str) -> Iterator[_Candidate]:
    def parts(path: str, end: int) -> list[str]:
        inner, _, name = path[len(folder) + 1 : end].rpartition("/")
        return [inner, name] if inner else [name]

    for at, folders, files in os.walk(root / folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = os.path.relpath(at, root / folder).replace(os.sep, "/")
        before = folder if inner == "." else f"{folder}/{inner}"
        for name in (*folders, *sorted(files)):
            if not name.startswith("."):
                yield f"{before}/{name}", parts


def _fitting(root: Path, pattern: str) -> Iterator[_Candidate]:
    escaped = _escaped(root, pattern)
    expression, depths = _regex(escaped)
    for file in glob.iglob(escaped, root_dir=root, recursive=True):
        path = file.replace(os.sep, "/")
        if match := expression.fullmatch(path):
            yield path, functools.partial(_captured, match, depths)


def _captured(match: re.Match[str], depths: list[bool], path: str, end: int) -> list[str]:
    """What the wildcards stand for in a path that is cut off at `end`, but for a `**/` that stands for no folder."""
    spans = [(*match.span(number), depth) for number, depth in enumerate(depths, 1)]
    kept = [(start, stop) for start, stop, depth in spans if start <= end and not (depth and start == stop)]
    return [path[start : min(stop, end)].strip("/") for start, stop in kept]


def _regex(pattern: str) -> tuple[re.Pattern[str], list[bool]]:
    """The glob pattern as a regular expression with one group for each wildcard; and which of them are `**/`.

    Raises:
        UserError: it is none.
    """
    text = ""
    depths: list[bool] = []
    for i, part in enumerate(_WILDCARDS.split(pattern)):
        if i % 2 == 0:
            text += re.escape(part)
        elif part in ("[[]", "[?]", "[*]"):  # glob's way to write a character that is no wildcard
            text += re.escape(part[1])
        else:
            inside = part[1:-1].replace("\\", r"\\").replace("[", r"\[")
            text += _CAPTURES.get(part) or f"([{'^' + inside[1:] if inside.startswith('!') else inside}])"
            depths.append(part == "**/")
    try:
        return re.compile(text), depths
    except re.error as error:
        raise UserError(
            f"{pattern}: is no pattern ({error}); write what lies between [ and ] from low to high"
        ) from None


def _called_so(root: Path, pattern: str) -> int:
    """How many of a pattern's first parts have no wildcard, or are what something in the root is called."""
    parts = pattern.split("/")
    for number, part in enumerate(parts):
        if glob.has_magic(part) and not os.path.lexists(root / "/".join(parts[: number + 1])):
            return number
    return len(parts)


def _escaped(root: Path, pattern: str) -> str:
    """The pattern with what is no wildcard written so that glob takes it for none."""
    parts, fixed = pattern.split("/"), _called_so(root, pattern)
    return "/".join([*map(glob.escape, parts[:fixed]), *parts[fixed:]])


def _there(root: Path, pattern: str, items: Items) -> str:
    """What a folder has in place of what was looked for, for a message."""
    if not (root / pattern).is_dir():
        return ""
    jpeg = any(path.lower().endswith(JPEG_SUFFIXES) for path, _ in _in_folder(root, pattern))
    if jpeg and items.suffixes == MASK_SUFFIXES:
        return (
            " (JPEG is no format for masks, it changes values: write them as PNG, or say how far a pixel may be from its "
            "class's value: data.dataset.tolerance=20)"
        )
    return f" ({contents(root / pattern)} is there)"


def _around(root: Path, pattern: str) -> Iterator[Path]:
    """Some of what lies where a pattern looks, and in the folders there."""
    near = root / "/".join(pattern.split("/")[: _called_so(root, pattern)])
    with contextlib.suppress(OSError):
        listed = list(itertools.islice(near.iterdir(), _LOOKED_AT))
        yield from listed
        for path in listed:
            if path.is_dir() and not path.suffix:
                yield from itertools.islice(path.iterdir(), _LOOKED_AT)
