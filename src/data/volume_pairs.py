"""Image and label files found by pattern, and which of them belong to a split."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.data import not_read
from src.errors import UserError
from src.seeding import derive

_LOOKED_AT = 1000  # files, where none fits


@dataclass(frozen=True)
class Pair:
    """An image and its label, each a file or (a DICOM series, say) a folder."""

    name: str
    image: Path
    mask: Path


def find_pairs(
    root: str, images: str, masks: str, suffixes: Sequence[str], is_image: Callable[[Path], bool],
    is_mask: Callable[[Path], bool],
) -> list[Pair]:  # fmt: skip
    """Pairs in order of their names. What the `*` of both patterns stand for is the name that pairs them.

    Args:
        root: the data set's folder.
        images, masks: patterns below root such as `imagesTr/*_0000.nii.gz`; a folder takes everything in it.
        suffixes: what is cut off a name's end, e.g. `.nii.gz`.
        is_image, is_mask: whether a path is one item.

    Raises:
        UserError: a folder is missing, nothing is found, or an image or a mask stands alone.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"data.root: there is no folder {folder}; give the data set's folder as data.root=…")
    found = _matches(folder, images, "images", suffixes, is_image)
    labels = _matches(folder, masks, "masks", suffixes, is_mask)
    for name, file in found.items():
        if name not in labels:
            raise UserError(f"{file}: image without mask; {folder / masks} has none that is named {name!r}")
    for name, file in labels.items():
        if name not in found:
            raise UserError(f"{file}: mask without image; {folder / images} has none that is named {name!r}")
    return [Pair(name or _stem(found[name].name, suffixes), found[name], labels[name]) for name in sorted(found)]


def split_folder(root: str, images: str, split: str) -> str:
    """The split whose folder is read: "val" for "test" where no test folder of `images` exists."""
    parts = images.split("/")
    upto = next(i for i, part in enumerate(parts) if "{split}" in part) + 1
    there = any(Path(root).expanduser().glob("/".join(parts[:upto]).format(split="test")))
    return "val" if split == "test" and not there else split


def assign(
    names: Sequence[str], val: Sequence[str] | None, test: Sequence[str] | None, val_fraction: float,
    test_fraction: float, seed: int, what: str,
) -> list[str]:  # fmt: skip
    """The split of each name. Lists take the place of fractions.

    A fraction takes the names whose hash with the seed is lowest, so that a data set that grows keeps most of its split.

    Args:
        what: the things that are split, for messages.

    Raises:
        UserError: a listed name is unknown or in both lists, or nothing is left to train or validate on.
    """
    listed = val is not None or test is not None
    for key, chosen in (("val", val), ("test", test)):
        for name in chosen or ():
            if name not in names:
                raise UserError(
                    f"data.dataset.{key}: there is no {name!r}; the data has {', '.join(names[:10])}"
                    f"{' …' if len(names) > 10 else ''}"
                )
    if both := set(val or ()) & set(test or ()):
        raise UserError(f"data.dataset.test: {min(both)!r} is in data.dataset.val too; take it out of one")
    if listed:
        of = dict.fromkeys(val or (), "val") | dict.fromkeys(test or (), "test")
    else:
        order = sorted(names, key=lambda name: derive(seed, "split", name))
        tested = max(1, round(test_fraction * len(names))) if test_fraction else 0
        held = max(1, round(val_fraction * len(names)))
        of = dict.fromkeys(order[:tested], "test") | dict.fromkeys(order[tested : tested + held], "val")
    splits = [of.get(name, "train") for name in names]
    for split in ("train", "val"):
        if split not in splits:
            mend = f"data.dataset.{'val' if listed else 'val_fraction'}"
            raise UserError(
                f"{mend}: of {len(names)} {what} none is left for the split {split!r}; change it, or give each split a "
                f"folder with {{split}} in data.dataset.images and data.dataset.masks"
            )
    return splits


def _matches(
    root: Path, pattern: str, key: str, suffixes: Sequence[str], is_item: Callable[[Path], bool]
) -> dict[str, Path]:
    if "*" not in pattern and (root / pattern).is_dir() and not is_item(root / pattern):
        pattern = f"{pattern.rstrip('/')}/*"
    expression = re.compile(re.escape(pattern).replace(r"\*\*", "(.*)").replace(r"\*", "([^/]*)"))
    found: dict[str, Path] = {}
    for path in sorted(root.glob(pattern.replace("[", "[[]").replace("?", "[?]"))):
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match is None or path.name.startswith(".") or not is_item(path):
            continue
        name = _stem("_".join(match.groups()), suffixes)
        if name in found:
            raise UserError(f"{path}: has the same name as {found[name].name}; keep one of them")
        found[name] = path
    if not found:
        fixed = "/".join(itertools.takewhile(lambda part: "*" not in part, pattern.split("/")))
        near = root / fixed if (root / fixed).is_dir() else (root / fixed).parent
        instead = not_read.found_instead(itertools.islice(_below(near), _LOOKED_AT))
        raise UserError(
            f"data.dataset.{key}: nothing fits {root / pattern}"
            f"{instead or '; give a folder or a pattern below data.root'}"
        )
    return found


def _below(folder: Path) -> Iterator[Path]:
    """What lies in a folder and in its folders."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            yield path
            if path.is_dir() and not path.suffix:
                yield from path.iterdir()


def _stem(name: str, suffixes: Sequence[str]) -> str:
    for suffix in sorted(suffixes, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
