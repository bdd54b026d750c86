"""Finds annotations in COCO's format and their photos where labelling tools put them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.data.layout.exports import contents, split_folders
from src.errors import UserError
from src.files.untrusted import shown

_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


@dataclass(frozen=True)
class Export:
    """One split's annotation file and the folders that its photos may lie in.

    Attributes:
        tool: what writes such a root, in words.
        file: the annotations.
        photos: folders below the root, in which to look in this order.
        is_whole: whether the file is of all splits, which are then drawn.
    """

    tool: str
    file: Path
    photos: tuple[str, ...]
    is_whole: bool = False


def find(root: Path, split: str) -> Export | None:
    """The export of a split; None where there is none of this split.

    Raises:
        UserError: nothing in the root looks like annotations in COCO's format.
    """
    by_split = {s: _file(root, s) for s in _NAMES}
    if by_split["train"] is not None:
        return by_split[split]
    whole = [root / "annotations/instances_default.json", root / "result.json", root / "_annotations.coco.json"]
    whole += [file for folder in (root, root / "annotations") for file in sorted(folder.glob("*.json"))]
    file = next((file for file in whole if file.is_file()), None)
    if file is None:
        raise UserError(
            f"data.root: {root / 'train2017'} is missing; unpack COCO's train2017.zip into {root}, or give a root with your "
            f"own annotations: train/_annotations.coco.json, annotations/instances_train.json or one .json "
            f"({contents(root)} is there)"
        )
    return Export("COCO's format, one file", file, ("images", "images/default", "", "data"), is_whole=True)


def _file(root: Path, split: str) -> Export | None:
    folders = split_folders(root)
    if split in folders and (file := root / folders[split] / "_annotations.coco.json").is_file():
        return Export("Roboflow's COCO", file, (folders[split],))
    for name in _NAMES[split]:
        for written in (
            f"annotations/instances_{name}.json",
            f"annotations/{name}.json",
            f"{name}.json",
            f"instances_{name}.json",
        ):
            if (root / written).is_file():
                photos = (f"images/{name}", name, "images", "")
                return Export("COCO's format, a file for each split", root / written, photos)
    return None


def locate(root: Path, photos: tuple[str, ...], file_name: Any, of: Path) -> str:
    """The photo, relative to the root, that an annotation file calls `file_name`: a path of wherever it was made.

    Raises:
        UserError: it is in none of the folders.
    """
    if not isinstance(file_name, str) or not file_name:
        raise UserError(f"{of}: an image has no file_name; export it again")
    path = file_name.replace("\\", "/")
    for name in dict.fromkeys((path, path.rpartition("/")[2])):
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            continue  # a path of another machine
        for folder in photos:
            place = f"{folder}/{name}" if folder else name
            if (root / place).is_file():
                return place
    raise UserError(
        f"{of}: its image {shown(file_name, 120)!r} is in none of {', '.join(f'{p}/' if p else str(root) for p in photos)}; "
        "put the photos there"
    )
