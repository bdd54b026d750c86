"""`Cityscapes` reads street scenes of 50 cities, 19 classes (Cordts et al. 2016), in the official layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from src.data.formats.paired import Paired
from src.data.labels import LabelSet
from src.data.layout.pairs import Pair
from src.data.layout.patterns import existing
from src.data.readers.images import read_index_mask
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
LABELS = LabelSet(tuple(name for name, _, _ in _CLASSES), tuple(color for _, color, _ in _CLASSES))
_IMAGE = "_leftImg8bit.png"
_MASKS = ("labelIds", "labelTrainIds")  # of a file that is there in both kinds the first is read


class Cityscapes(Paired):
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

    def __init__(self, split: str, root: str, annotations: Literal["fine", "coarse", "fine+coarse"] = "fine") -> None:
        folder = existing(root)
        parts = {
            "fine": [("train", "gtFine")],
            "coarse": [("train", "gtCoarse"), ("train_extra", "gtCoarse")],
            "fine+coarse": [("train", "gtFine"), ("train_extra", "gtCoarse")],
        }[annotations]
        pairs: list[Pair] = []
        for part, kind in parts if split == "train" else [("val", "gtFine")]:
            pairs += _pairs(folder, part, kind)
        super().__init__(folder, "train" if split == "train" else "val", LABELS, pairs, by_official_id())
        self._of_train_id = by_train_id()

    def _read_mask(self, file: Path) -> npt.NDArray[np.uint8]:
        return read_index_mask(file, self._of_train_id if file.stem.endswith("labelTrainIds") else self._lookup)


def by_official_id() -> npt.NDArray[np.uint8]:
    """The class of each official id of cityscapesScripts; others are ignored."""
    lookup = np.full(65536, LABELS.ignore_index, np.uint8)
    lookup[[official for _, _, official in _CLASSES]] = range(len(_CLASSES))
    return lookup


def by_train_id() -> npt.NDArray[np.uint8]:
    """The class of each training id, which is its number; others are ignored."""
    lookup = np.full(65536, LABELS.ignore_index, np.uint8)
    lookup[: len(_CLASSES)] = range(len(_CLASSES))
    return lookup


def _pairs(root: Path, split: str, kind: str) -> list[Pair]:
    """Images and masks of a split, in order of city and name."""
    found: list[Pair] = []
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
            found.append(Pair(image, f"{place}/{image}{_IMAGE}", f"{masks}/{mask}"))
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
