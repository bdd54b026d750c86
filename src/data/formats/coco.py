"""`Coco` reads COCO's release (Lin et al. 2014), and one's own photos with annotations in its format."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import NonNegativeInt
from torch import Tensor

from src.data.fetch import Archive, fetch
from src.data.formats import coco_layouts, cocostuff
from src.data.formats.coco_instances import Instances, category_names
from src.data.formats.coco_panoptic import Panoptic
from src.data.labels import LabelSet
from src.data.layout import pairs, splits
from src.data.layout.file_list import FileList
from src.data.layout.patterns import existing
from src.data.layout.splits import ProperShare
from src.data.readers.images import read_index_mask, read_pair
from src.errors import UserError

_SERVER = "http://images.cocodataset.org"
_ARCHIVES = {
    "train2017": Archive(f"{_SERVER}/zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", "train2017", "train2017"),
    "val2017": Archive(f"{_SERVER}/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", "val2017", "val2017"),
    "annotations": Archive(
        f"{_SERVER}/annotations/annotations_trainval2017.zip",
        "f4bbac642086de4f52a3fdda2de5fa2c",
        "annotations",
        "annotations",
    ),
}


class _Annotations(Protocol):
    """One kind of annotation of one split."""

    label_set: LabelSet
    images: FileList

    def files(self, index: int) -> tuple[Path, ...]: ...

    def read_mask(self, index: int) -> npt.NDArray[np.uint8]: ...

    def mask_name(self, index: int) -> str:
        """What a message calls the mask."""
        ...


class Coco:
    """Photos in `<root>/{train,val}2017/` (or `<root>/images/…`). The test split's labels are not public: "test" is "val".

    A root without them is looked through for one's own annotations (`coco_layouts`): a file for each split, or one, of which
    val is drawn. Its categories are the classes, over a background.

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.
        kind: `instances`, the outlines of 80 kinds of things from `annotations/instances_*2017.json`, over a background;
            `stuff`, 171 classes from the index PNGs of `stuffthingmaps/*2017/`; `panoptic`, 133 classes from
            `annotations/panoptic_*2017.json` and the PNGs of `annotations/panoptic_*2017/`.
        classes: of instances: names of the categories to take, in order; others are background. None takes all.
        min_area: of instances: training images whose things have together no more pixels than this are left out.
        download: fetch the split's photos, and the annotations of instances, into `root` where they are missing.
        val_fraction, test_fraction: of one's own photos in one file: shares to draw.
        split_seed: of that draw.
        group: regular expression; photos in whose names its first group is the same stay in one split.

    Raises:
        UserError: a file is missing or damaged, the download failed, or pycocotools is not installed.
    """

    channels = 3
    intensity = (0.0, 255.0)

    def __init__(
        self,
        split: str,
        root: str,
        kind: Literal["instances", "stuff", "panoptic"] = "instances",
        classes: list[str] | None = None,
        min_area: NonNegativeInt = 0,
        download: bool = False,
        val_fraction: ProperShare = 0.2,
        test_fraction: ProperShare | None = None,
        split_seed: NonNegativeInt = 0,
        group: str | None = None,
    ) -> None:
        self.layout = ""
        self._chosen: npt.NDArray[np.int64] | None = None
        self.split = "train" if split == "train" else "val"
        part = f"{self.split}2017"
        if download:
            fetch(
                Path(root).expanduser(), [_ARCHIVES[part], *([_ARCHIVES["annotations"]] if kind == "instances" else [])]
            )
        folder = existing(root)
        photos = next((p for p in (part, f"images/{part}") if (folder / p).is_dir()), None)
        if photos is None and (kind != "instances" or _is_release(folder)):
            raise UserError(f"data.root: {folder / part} is missing; unpack COCO's {part}.zip into {folder}")
        if kind != "instances" and (classes is not None or min_area):
            raise UserError(
                "data.dataset.classes: classes and min_area choose instances; leave them out, or take "
                "data.dataset.kind=instances"
            )
        self._annotations: _Annotations
        if photos is None:
            area = min_area if split == "train" else 0
            own = coco_layouts.find(folder, split)
            self.split = split if own is not None and (not own.is_whole or split != "test" or test_fraction) else "val"
            own = own or coco_layouts.find(folder, "val")
            first = coco_layouts.find(folder, "train")
            if own is None or first is None:
                raise UserError(
                    f"data.root: {folder} has no annotations of val; add valid/_annotations.coco.json or "
                    "annotations/instances_val.json, or put all into one file, from which val is drawn"
                )
            self.layout = own.tool
            names = None if first.file == own.file else category_names(first.file)
            self._annotations = Instances(folder, "", "", classes, area, own, names)
            if own.is_whole:
                found = self._annotations.images
                order = sorted(range(len(found)), key=lambda i: found[i])
                keys = [found[i] for i in order]
                shares = splits.draw(
                    keys, val_fraction, test_fraction or 0.0, split_seed, splits.grouped(keys, group), "photos"
                )
                self._chosen = np.array([order[i] for i in shares[self.split]], np.int64)
        elif kind == "instances":
            self._annotations = Instances(folder, part, photos, classes, min_area if split == "train" else 0)
        elif kind == "panoptic":
            self._annotations = Panoptic(folder, part, str(photos))
        else:
            self._annotations = _Stuff(folder, part, str(photos))
        self.label_set = self._annotations.label_set
        self.drawn = self._chosen is not None

    def __len__(self) -> int:
        return len(self._annotations.images) if self._chosen is None else len(self._chosen)

    def name(self, index: int) -> str:
        return self._annotations.images.path(self._at(index)).stem

    def files(self, index: int) -> tuple[Path, ...]:
        index = self._at(index)
        return self._annotations.images.path(index), *self._annotations.files(index)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image uint8 [3, H, W] and mask uint8 [H, W]."""
        index = self._at(index)
        mask = self._annotations.read_mask(index)
        return read_pair(self._annotations.images.path(index), mask, self._annotations.mask_name(index))

    def _at(self, index: int) -> int:
        """Where a sample of the split stands among the annotations' images."""
        return index if self._chosen is None else int(self._chosen[index])


def _is_release(root: Path) -> bool:
    """Whether the root is COCO's own release, of which a part is missing."""
    return (
        any((root / name).is_dir() for name in ("train2017", "val2017", "images/train2017", "images/val2017"))
        or (root / "annotations/instances_train2017.json").is_file()
    )


class _Stuff:
    """Index PNGs whose values are COCO's category ids less one, and 255."""

    def __init__(self, root: Path, part: str, photos: str) -> None:
        found = pairs.match(root, photos, f"stuffthingmaps/{part}")
        self.label_set = cocostuff.LABELS
        self.images = FileList(root, (pair.image for pair in found))
        self._masks = FileList(root, (pair.mask for pair in found))
        self._lookup = cocostuff.by_raw_value()

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._masks.path(index),)

    def read_mask(self, index: int) -> npt.NDArray[np.uint8]:
        return read_index_mask(self._masks.path(index), self._lookup)

    def mask_name(self, index: int) -> str:
        return str(self._masks.path(index))
