"""`Cityscapes` reads street scenes of 50 cities, 19 classes (Cordts et al. 2016), in the official layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from src.data.labels import LabelSet
from src.data.layout.file_list import FileList
from src.data.layout.patterns import existing
from src.data.readers.images import read_index_mask, read_pair
from src.errors import UserError

# Name, colour and official id of each training id, from cityscapesScripts' labels.py.
_CLASSES: tuple[tuple[str, tuple[int, int, int], int], ...] = (
    ("road", (128, 64, 128), 7),
    ("sidewalk", (244, 35, 232), 8),
    ("building", (70, 70, 70), 11),
    ("wall", (102, 102, 156), 12),
    ("fence", (190, 153, 153), 13),
    ("pole", (153, 153, 153), 17),
    ("traffic light", (250, 170, 30), 19),
    ("traffic sign", (220, 220, 0), 20),
    ("vegetation", (107, 142, 35), 21),
    ("terrain", (152, 251, 152), 22),
    ("sky", (70, 130, 180), 23),
    ("person", (220, 20, 60), 24),
    ("rider", (255, 0, 0), 25),
    ("car", (0, 0, 142), 26),
    ("truck", (0, 0, 70), 27),
    ("bus", (0, 60, 100), 28),
    ("train", (0, 80, 100), 31),
    ("motorcycle", (0, 0, 230), 32),
    ("bicycle", (119, 11, 32), 33),
)
_IMAGE = "_leftImg8bit.png"
_MASKS = ("labelIds", "labelTrainIds")  # of a file that is there in both kinds the first is read


class Cityscapes:
    """`<root>/leftImg8bit/<split>/<city>/*_leftImg8bit.png` with `<root>/gtFine/<split>/<city>/*_gtFine_labelIds.png`.

    `*_labelTrainIds.png` serve as well. Ids that are no training class are ignored. The labels of the official test split
    are not public, so "test" is "val". Validation always reads the fine annotations.

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.
        annotations: what to train with: `fine`, 2,975 images; `coarse`, the coarse annotations of these and of the 20,000
            of `train_extra`; `fine+coarse`, the fine ones and those of `train_extra`.

    Raises:
        UserError: a folder is missing or empty, an image has no mask or a mask no image.
    """

    channels = 3
    intensity = (0.0, 255.0)

    def __init__(self, split: str, root: str, annotations: Literal["fine", "coarse", "fine+coarse"] = "fine") -> None:
        folder = existing(root)
        self.split = "train" if split == "train" else "val"
        names, colors, ids = zip(*_CLASSES, strict=True)
        self.label_set = LabelSet(names, colors, ids=ids)
        parts = {
            "fine": [("train", "gtFine")],
            "coarse": [("train", "gtCoarse"), ("train_extra", "gtCoarse")],
            "fine+coarse": [("train", "gtFine"), ("train_extra", "gtCoarse")],
        }[annotations]
        samples: list[tuple[str, str]] = []
        for part, kind in parts if split == "train" else [("val", "gtFine")]:
            samples += _pairs(folder, part, kind)
        self._images = FileList(folder, (image for image, _ in samples))
        self._masks = FileList(folder, (mask for _, mask in samples))
        ignored = self.label_set.ignore_index
        self._of_train_id = np.full(65536, ignored, np.uint8)
        self._of_train_id[: len(_CLASSES)] = range(len(_CLASSES))
        self._of_id = np.full(65536, ignored, np.uint8)
        self._of_id[[official for _, _, official in _CLASSES]] = range(len(_CLASSES))

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return self._images.path(index).name.removesuffix(_IMAGE)

    def files(self, index: int) -> tuple[Path, ...]:
        return self._images.path(index), self._masks.path(index)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image uint8 [3, H, W] and mask uint8 [H, W]."""
        file = self._masks.path(index)
        lookup = self._of_train_id if file.stem.endswith("labelTrainIds") else self._of_id
        return read_pair(self._images.path(index), read_index_mask(file, lookup), str(file))


def _pairs(root: Path, split: str, kind: str) -> list[tuple[str, str]]:
    """Images and masks of a split, relative to `root`, in order of city and name."""
    found: list[tuple[str, str]] = []
    for city in _entries(root, f"leftImg8bit/{split}"):
        place, masks = f"leftImg8bit/{split}/{city}", f"{kind}/{split}/{city}"
        if not (root / place).is_dir():
            continue
        there = set(_entries(root, masks))
        images = [name.removesuffix(_IMAGE) for name in _entries(root, place) if name.endswith(_IMAGE)]
        for image in images:
            mask = next((m for s in _MASKS if (m := f"{image}_{kind}_{s}.png") in there), None)
            if mask is None:
                raise UserError(
                    f"{root / place / image}{_IMAGE}: image without mask; {root / masks / image}_{kind}_labelIds.png is missing"
                )
            found.append((f"{place}/{image}{_IMAGE}", f"{masks}/{mask}"))
        endings = tuple(f"_{kind}_{s}.png" for s in _MASKS)
        labelled = {mask.removesuffix(end) for mask in there for end in endings if mask.endswith(end)}
        for name in sorted(labelled.difference(images)):
            raise UserError(
                f"{root / masks / name}{endings[0]}: mask without image; {root / place / name}{_IMAGE} is missing"
            )
    if not found:
        raise UserError(
            f"{root / 'leftImg8bit' / split}: no CITY/*{_IMAGE} files; unpack leftImg8bit_trainvaltest.zip into {root}"
            if split != "train_extra"
            else f"{root / 'leftImg8bit' / split}: no CITY/*{_IMAGE} files; unpack leftImg8bit_trainextra.zip into {root}"
        )
    return found


def _entries(root: Path, folder: str) -> list[str]:
    try:
        return sorted(file.name for file in (root / folder).iterdir() if not file.name.startswith("."))
    except OSError:
        raise UserError(
            f"data.root: {root / folder} is missing; unpack Cityscapes' {folder.partition('/')[0]} archive into {root}"
        ) from None
