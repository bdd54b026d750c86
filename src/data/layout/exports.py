"""Recognises how a labelling tool's export is laid out, by what lies in a data set's root."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from src.data.readers.images import IMAGE_SUFFIXES
from src.data.samples import Split
from src.errors import UserError

Place = str | dict[Split, str]

_VAL = ("val", "valid", "validation")
_SPLITS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": _VAL,
    "test": ("test", "testing"),
}
_MASKS = ("masks", "labels", "annotations", "mask", "label", "gt")
_IMAGES = ("images", "imgs", "image", "img")
_LISTS = "ImageSets/Segmentation"
_LOOKED_AT = 2000  # entries of a folder
# Label Studio's export "brush labels to PNG": a picture for each label and stroke, named by a task's number.
_BRUSH = re.compile(r"(.*/)?task-\d+-annotation-\d+-.*\.png", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """Where images and masks lie, as `data=folder` takes it.

    Attributes:
        tool: what writes such a root, in words.
        images, masks, mask_suffix, lists: see `Folder`.
        one_for_all: whether there is nothing that splits it, so that val is drawn.
        by_color: whether the masks' colours are the classes.
    """

    tool: str
    images: Place
    masks: Place
    mask_suffix: str = ""
    lists: str | None = None
    one_for_all: bool = False
    by_color: bool = False


def recognise(root: Path) -> Layout | None:
    """The arrangement of masks that are images; None for the plain one of `data=folder` and for unknown ones."""
    return _roboflow(root) or _cvat(root) or _split_first(root) or _kind_first(root)


def other_format(root: Path) -> tuple[str, str] | None:
    """What wrote a root whose annotations are no images, and the `data=` that reads it."""
    top = _entries(root)
    inner = [name for name in top if (root / name).is_dir()]
    if "meta.json" in top and any((root / name / "ann").is_dir() for name in inner):
        return "Supervisely", "supervisely"
    for folder in (root, *(root / name for name in inner)):
        names = _entries(folder)
        jsons = [name for name in names if name.lower().endswith(".json")]
        if any(name.lower().startswith("via_") for name in jsons):
            return "VGG Image Annotator", "via"
        for name in sorted(jsons)[:3]:
            start = _start(folder / name)
            if '"shapes"' in start:
                return "labelme", "labelme"
            if '"categories"' in start or ('"annotations"' in start and '"images"' in start) or "coco" in name.lower():
                return "COCO's format", "coco"
            if start.lstrip().startswith("[") and ('"annotations"' in start or '"data"' in start):
                return "Label Studio", "labelstudio"
            if folder.name == "annotations" and name.startswith("instances_"):
                return "COCO's format", "coco"
            if '"images"' in start:
                return "COCO's format", "coco"
    return None


def check_names_photos(root: Path, names: Iterable[str] | None = None) -> None:
    """Checks that masks are named after their photos.

    Args:
        names: the masks' file names; None looks into the root and the folders in it.

    Raises:
        UserError: they are Label Studio's pictures of brush strokes.
    """
    if names is None:
        names = [*_entries(root), *(name for entry in _entries(root) for name in _entries(root / entry))]
    if (found := next((name for name in names if _BRUSH.fullmatch(name)), None)) is not None:
        raise UserError(
            f"data.root: {root} has Label Studio's brush strokes as PNG ({found[:60]}…), which name a task and no photo; "
            "export JSON instead, which has the same strokes, put it beside the photos and take data=labelstudio"
        )


def contents(folder: Path) -> str:
    """What lies in a folder, in a few words for a message."""
    names = _entries(folder)
    folders = sorted(name for name in names if (folder / name).is_dir())
    kinds = Counter(Path(name).suffix.lower() or "plain" for name in names if name not in folders)
    parts = [f"{name}/" for name in folders[:6]] + (["…"] if len(folders) > 6 else [])
    parts += [f"{count} {kind} file{'s' if count > 1 else ''}" for kind, count in kinds.most_common(4)]
    return ", ".join(parts) or "nothing"


def split_folders(root: Path, below: str = "") -> dict[Split, str]:
    """The folders, by split, that are named train, val (valid, validation) and test; below each `below`, if it is given."""
    found: dict[Split, str] = {}
    for split, names in _SPLITS.items():
        name = next((n for n in names if (root / n / below).is_dir()), None)
        if name is not None:
            found[split] = name
    return found if "train" in found else {}


def _roboflow(root: Path) -> Layout | None:
    splits = split_folders(root)
    if not splits or not any((root / name / "_classes.csv").is_file() for name in splits.values()):
        return None
    if not any(name.endswith("_mask.png") for name in _entries(root / splits["train"])):
        return None
    return Layout("Roboflow's semantic segmentation masks", splits, splits, "_mask", one_for_all="val" not in splits)


def _cvat(root: Path) -> Layout | None:
    lists = root / _LISTS
    if not ((root / "SegmentationClass").is_dir() and lists.is_dir()):
        return None
    found = sorted(name for name in _entries(lists) if name.endswith(".txt"))
    if not found:
        return None
    split = {"train.txt", "val.txt"} <= set(found)
    tool = "CVAT's segmentation mask" if (root / "labelmap.txt").is_file() else "Pascal VOC's layout"
    name = "{split}.txt" if split else "default.txt" if "default.txt" in found else found[0]
    by_color = (root / "labelmap.txt").is_file()
    return Layout(
        tool, "JPEGImages", "SegmentationClass", lists=f"{_LISTS}/{name}", one_for_all=not split, by_color=by_color
    )


def _split_first(root: Path) -> Layout | None:
    """`train/images` and `train/masks`."""
    for images in _IMAGES:
        splits = split_folders(root, images)
        masks = next((m for m in _MASKS if splits and (root / splits["train"] / m).is_dir()), None)
        if masks is not None:
            return Layout(
                "folders by split",
                {split: f"{name}/{images}" for split, name in splits.items()},
                {split: f"{name}/{masks}" for split, name in splits.items()},
                one_for_all="val" not in splits,
            )
    return None


def _kind_first(root: Path) -> Layout | None:
    """`images/train` and `labels/train`, or `images` and `masks` alone."""
    images = next((i for i in _IMAGES if (root / i).is_dir()), None)
    masks = next((m for m in _MASKS if (root / m).is_dir()), None)
    if images is None or masks is None:
        return None
    splits = split_folders(root / images)
    if splits:
        if not all((root / masks / name).is_dir() for name in splits.values()):
            return None
        return Layout(
            "folders by kind",
            {split: f"{images}/{name}" for split, name in splits.items()},
            {split: f"{masks}/{name}" for split, name in splits.items()},
            one_for_all="val" not in splits,
        )
    if any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in _entries(root / images)):
        return Layout("one folder of images and one of masks", images, masks, one_for_all=True)
    return None


def _entries(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry.name for entry in islice(entries, _LOOKED_AT) if not entry.name.startswith(".")]


def _start(file: Path) -> str:
    """The first characters of a text file, without a second look at it: enough to tell whose it is."""
    if not file.is_file():
        return ""
    with file.open("rb") as stream:
        return stream.read(4096).decode("utf-8", "replace")
