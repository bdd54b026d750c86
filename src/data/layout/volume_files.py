"""Image and label files found by pattern, and which of them belong to a split."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.data.layout import not_read, splits
from src.data.notices import say_once
from src.errors import UserError

_LOOKED_AT = 1000  # files, where none fits
_SUBJECT = re.compile(r"(?:^|[^A-Za-z0-9])(sub-[A-Za-z0-9]+)")  # BIDS


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


def subjects(names: Sequence[str], group: str | None, patients: Sequence[str | None]) -> dict[str, str]:
    """By name, the subject that an image is of. Names of which nothing is known are left out.

    Args:
        names: of all images.
        group: a regular expression; or "auto", the patient whom an image's header names, else what BIDS calls the subject
            (`sub-01_ses-2_T1w` is of `sub-01`); None knows nothing.
        patients: of each name's header, None where it has none.

    Raises:
        UserError: the expression is none, or does not fit a name.
    """
    if group is None:
        return {}
    if group != "auto":
        return dict(zip(names, splits.grouped(names, group), strict=True))
    found = {name: f"patient {patient}" for name, patient in zip(names, patients, strict=True) if patient}
    if len(names) > 1 and len(found) == len(names) and len(set(found.values())) == 1:
        found = {}  # one name for all is how tools make headers anonymous
    bids = {name: match[1] for name in names if (match := _SUBJECT.search(name))}
    return bids | found


def by_subject(names: Sequence[str], of: Mapping[str, str], what: str) -> list[str]:
    """The group that each image is split with; each is one of its own where all are of one subject, which is said."""
    if len(names) > 1 and len(of) == len(names) and len(set(of.values())) == 1:
        say_once(
            f"all {len(names)} {what} are of one subject ({names[0]} …), so the splits share it: scores say little about others"
        )
        return list(names)
    return [of.get(name, name) for name in names]


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
