"""Pairs images with masks: by parallel folders, by glob patterns, by a list."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from src.data.layout.exports import check_names_photos
from src.data.layout.patterns import Items, find, is_glob
from src.data.readers.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from src.errors import UserError
from src.files.untrusted import read_lines

PHOTOS, MASKS = Items(IMAGE_SUFFIXES), Items(MASK_SUFFIXES)
_IMAGE, _MASK = ("|".join(map(re.escape, suffixes)) for suffixes in (IMAGE_SUFFIXES, MASK_SUFFIXES))
_LINE_OF_TWO = re.compile(rf"""["']?(.+?(?:{_IMAGE}))["']?[,;\s]+["']?(.+(?:{_MASK}))["']?""", re.IGNORECASE)


class Pair(NamedTuple):
    """A sample's name, and its image and mask relative to the root, each a file or (a DICOM series, say) a folder."""

    name: str
    image: str
    mask: str


def match(root: Path, images: str, masks: str, image_items: Items = PHOTOS, mask_items: Items = MASKS) -> list[Pair]:
    """Pairs of two folders or glob patterns below `root`, sorted by name.

    In a folder, `NAME.jpg` belongs to `NAME<tail>.png`. With patterns, what the wildcards stand for is the name, so
    `Tile */images/*.jpg` and `Tile */masks/*.png` pair `Tile 1/images/a.jpg` with `Tile 1/masks/a.png` as `1/a`.

    Raises:
        UserError: a folder is missing, nothing is found, or an image or a mask is without the other.
    """
    image_files, mask_files = find(root, images, image_items), find(root, masks, mask_items)
    if "" in image_files and "" in mask_files:  # one file each, whatever they are called
        ((name, image),) = _called(root, image_files, image_items).items()
        return [Pair(name, image, mask_files[""])]
    image_files, mask_files = _called(root, image_files, image_items), _called(root, mask_files, mask_items)
    if mask_items.tail and images == masks:  # a mask beside its image is no image
        among = set(mask_files.values())
        image_files = {name: file for name, file in image_files.items() if file not in among}
    for name, file in image_files.items():
        if name not in mask_files:
            check_names_photos(root, mask_files.values())
            raise UserError(f"{root / file}: image without mask; {_expected(root, masks, name, mask_items)} is missing")
    for name, file in mask_files.items():
        if name not in image_files:
            raise UserError(
                f"{root / file}: mask without image; add {_expected(root, images, name, image_items)} or remove it"
            )
    return [Pair(name, image_files[name], mask_files[name]) for name in sorted(image_files)]


def read_list(root: Path, list_file: Path, images: str, masks: str, mask_items: Items = MASKS) -> list[Pair]:
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
                found = find(root, images, PHOTOS), find(root, masks, mask_items)
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


def _called(root: Path, found: dict[str, str], items: Items) -> dict[str, str]:
    """Items by name; the one of a pattern without wildcards, which has none, by that of its file."""
    return {name or file[: items.end(root, file)].rpartition("/")[2]: file for name, file in found.items()}


def _expected(root: Path, pattern: str, name: str, items: Items) -> str:
    if is_glob(root, pattern) or items.is_item is not None:
        return f"a file for {name!r} in {root / pattern}"
    return str(root / pattern / f"{name}{items.tail}{items.suffixes[0]}")


def _parted(path: str) -> tuple[str, str]:
    """A path without its suffix, and the suffix with its dot; of strings, for a `Path` for each of a million costs seconds."""
    stem, dot, suffix = path.rpartition(".")
    return (stem, f".{suffix}") if dot and "/" not in suffix else (path, "")


def _as_written(root: Path, file: str) -> str:
    """A path of a list below the root, its backslashes as slashes unless a file is called so."""
    return file if (root / file).exists() else file.replace("\\", "/").removeprefix("./")


def _entries(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if (text := line.strip()) and not text.startswith("#"):
            yield number, text
