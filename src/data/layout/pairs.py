"""Which image belongs to which mask: by parallel folders, by glob patterns, by a list."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from src.data.layout.exports import check_names_photos, contents
from src.data.readers.images import IMAGE_SUFFIXES, JPEG_SUFFIXES, MASK_SUFFIXES
from src.errors import UserError
from src.files.untrusted import read_lines

_IMAGE, _MASK = ("|".join(map(re.escape, suffixes)) for suffixes in (IMAGE_SUFFIXES, MASK_SUFFIXES))
_LINE_OF_TWO = re.compile(rf"""["']?(.+?(?:{_IMAGE}))["']?[,;\s]+["']?(.+(?:{_MASK}))["']?""", re.IGNORECASE)


class Pair(NamedTuple):
    """A sample's name, and its image and mask relative to the root."""

    name: str
    image: str
    mask: str


def match(
    root: Path, images: str, masks: str, mask_suffix: str = "", mask_suffixes: tuple[str, ...] = MASK_SUFFIXES
) -> list[Pair]:
    """Pairs of two folders or glob patterns below `root`, sorted by name.

    In a folder, `NAME.jpg` belongs to `NAME<mask_suffix>.png`. With patterns, what the wildcards stand for is the name,
    so `Tile */images/*.jpg` and `Tile */masks/*.png` pair `Tile 1/images/a.jpg` with `Tile 1/masks/a.png` as `1/a`.

    Raises:
        UserError: a folder is missing, nothing is found, or an image or a mask is without the other.
    """
    image_files, mask_files = find(root, images, IMAGE_SUFFIXES), find(root, masks, mask_suffixes, mask_suffix)
    if mask_suffix and images == masks:  # a mask beside its image is no image
        among = set(mask_files.values())
        image_files = {name: file for name, file in image_files.items() if file not in among}
    for name, file in image_files.items():
        if name not in mask_files:
            check_names_photos(root, mask_files.values())
            raise UserError(
                f"{root / file}: image without mask; {_expected(root, masks, name, mask_suffix, '.png')} is missing"
            )
    for name, file in mask_files.items():
        if name not in image_files:
            raise UserError(
                f"{root / file}: mask without image; add {_expected(root, images, name, '', '.jpg')} or remove it"
            )
    return [Pair(name, image_files[name], mask_files[name]) for name in sorted(image_files)]


def read_list(
    root: Path,
    list_file: Path,
    images: str,
    masks: str,
    mask_suffix: str = "",
    mask_suffixes: tuple[str, ...] = MASK_SUFFIXES,
) -> list[Pair]:
    """Pairs in the order of a text file: on each line an image and a mask, relative to `root`, or a name that `match`
    would give. Empty lines and those that begin with # are skipped; a backslash separates folders where no file is called so.

    Raises:
        UserError: the list cannot be read, is empty, names a file that is not there, or one twice.
    """
    try:
        lines = read_lines(list_file)
    except OSError as error:
        reason = str(error).splitlines()[0][:120]
        raise UserError(f"{list_file}: the list cannot be read ({reason}); correct data.dataset.lists") from None
    pairs: list[Pair] = []
    names: set[str] = set()
    found: tuple[dict[str, str], dict[str, str]] | None = None
    for number, line in _entries(lines):
        if two := _LINE_OF_TWO.fullmatch(line):
            image, mask = (_as_written(root, file) for file in two.groups())
            pair = Pair(_parted(image)[0], image, mask)
            for file in pair[1:]:
                if not (root / file).exists():
                    raise UserError(f"{list_file} line {number}: there is no file {root / file}; correct the list")
        else:
            if found is None:
                found = find(root, images, IMAGE_SUFFIXES), find(root, masks, mask_suffixes, mask_suffix)
            stem, suffix = _parted(line)
            name = unicodedata.normalize("NFC", stem if suffix.lower() in IMAGE_SUFFIXES else line)
            if name not in found[0]:
                name = name.replace("\\", "/").removeprefix("./")
            for kind, files, where in zip(("image", "mask"), found, (images, masks), strict=True):
                if name not in files:
                    raise UserError(
                        f"{list_file} line {number}: there is no {kind} {name!r} in {root / where}; correct the list"
                    )
            pair = Pair(name, found[0][name], found[1][name])
        if pair.name in names:
            raise UserError(f"{list_file} line {number}: {pair.name} is listed before; name each image once")
        names.add(pair.name)
        pairs.append(pair)
    if not pairs:
        raise UserError(f"{list_file}: lists no image; the split is empty")
    return pairs


def find(root: Path, pattern: str, suffixes: tuple[str, ...], tail: str = "") -> dict[str, str]:
    """Files by name, relative to `root`, of a folder or a glob pattern; names end with `tail`, which is taken off. In a
    folder that has none itself, the files of the folders below it, whose names begin with those folders'.

    Raises:
        UserError: the folder is missing, nothing is found, or two files have one name.
    """
    glob_ = is_glob(root, pattern)
    files = _chosen(root, _globbed(root, pattern) if glob_ else _in_folder(root, pattern), suffixes, tail)
    if not files and not glob_:
        files = _chosen(root, _below(root, pattern), suffixes, tail)
    if not files:
        raise UserError(
            f"{root / pattern}: no {' or '.join(suffixes)} files{f' whose names end with {tail}' if tail else ''}; the split "
            f"is empty{_instead(root, pattern, suffixes)}"
        )
    return files


def _chosen(root: Path, named: Iterable[tuple[str, str]], suffixes: tuple[str, ...], tail: str) -> dict[str, str]:
    files: dict[str, str] = {}
    for name, file in named:
        if _parted(file)[1].lower() not in suffixes or not name.endswith(tail):
            continue
        name = unicodedata.normalize("NFC", name.removesuffix(tail))  # macOS writes accents apart from their letters
        if name in files:
            both = sorted([files[name], file])
            raise UserError(f"{root / both[1]}: has the same name as {both[0].rpartition('/')[2]}; keep one of them")
        files[name] = file
    return files


def _instead(root: Path, pattern: str, suffixes: tuple[str, ...]) -> str:
    """What a folder has in place of what was looked for, for a message."""
    if is_glob(root, pattern):
        return ""
    if (
        any(_parted(file)[1].lower() in JPEG_SUFFIXES for _, file in _in_folder(root, pattern))
        and suffixes == MASK_SUFFIXES
    ):
        return (
            " (JPEG is no format for masks, it changes values: write them as PNG, or say how far a pixel may be from its "
            "class's value: data.dataset.tolerance=20)"
        )
    return f" ({contents(root / pattern)} is there)"


def is_glob(root: Path, pattern: str) -> bool:
    return glob.has_magic(pattern) and not (root / pattern).is_dir()


def exists(root: Path, pattern: str) -> bool:
    """Whether there is such a folder, or anything that the glob pattern fits."""
    if is_glob(root, pattern):
        return next(glob.iglob(pattern, root_dir=root, recursive=True), None) is not None
    return (root / pattern).is_dir()


def _in_folder(root: Path, folder: str) -> Iterator[tuple[str, str]]:
    if not (root / folder).is_dir():
        raise UserError(
            f"data.root: {root / folder} is missing; check data.root and the data set's layout ({root} has {contents(root)}), "
            "or say where they lie: data.dataset.images=… data.dataset.masks=…"
        )
    with os.scandir(root / folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                yield _parted(entry.name)[0], f"{folder}/{entry.name}"


def _below(root: Path, folder: str) -> Iterator[tuple[str, str]]:
    for at, folders, files in os.walk(root / folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = os.path.relpath(at, root / folder).replace(os.sep, "/")
        before = "" if inner == "." else f"{inner}/"
        for name in sorted(files):
            if not name.startswith("."):
                yield f"{before}{_parted(name)[0]}", f"{folder}/{before}{name}"


def _globbed(root: Path, pattern: str) -> Iterator[tuple[str, str]]:
    captures = re.compile(_regex(_parted(pattern)[0]))
    for file in glob.iglob(pattern, root_dir=root, recursive=True):
        if fits := captures.fullmatch(_parted(file)[0]):
            yield "/".join(filter(None, (part.strip("/") for part in fits.groups()))), file


def _parted(path: str) -> tuple[str, str]:
    """A path without its suffix, and the suffix with its dot; of strings, for a `Path` for each of a million costs seconds."""
    stem, dot, suffix = path.rpartition(".")
    return (stem, f".{suffix}") if dot and "/" not in suffix else (path, "")


def _regex(pattern: str) -> str:
    """The glob pattern as a regular expression with one group for each wildcard."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]]*\])", pattern)
    wildcards = {"**/": "((?:[^/]+/)*)", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}
    text = ""
    for i, part in enumerate(parts):
        if i % 2 == 0:
            text += re.escape(part)
        else:
            text += wildcards.get(part) or f"([{part[1:-1].replace('!', '^', 1) if part[1] == '!' else part[1:-1]}])"
    return text


def _expected(root: Path, pattern: str, name: str, tail: str, suffix: str) -> str:
    if is_glob(root, pattern):
        return f"a file for {name!r} in {root / pattern}"
    return str(root / pattern / f"{name}{tail}{suffix}")


def _as_written(root: Path, file: str) -> str:
    """A path of a list below the root, its backslashes as slashes unless a file is called so."""
    return file if (root / file).exists() else file.replace("\\", "/").removeprefix("./")


def _entries(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if (text := line.strip()) and not text.startswith("#"):
            yield number, text
