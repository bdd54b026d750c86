"""`CocoStuff` reads COCO-Stuff 164k, photos with 80 things and 91 kinds of stuff (Caesar et al. 2018)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from src.data.formats.paired import Paired, first_folder, in_folders
from src.data.labels import LabelSet, voc_colors
from src.data.layout import patterns
from src.data.layout.patterns import existing
from src.data.readers.images import NO_CLASS, index_lookup
from src.errors import UserError

# The things in COCO's order, then the kinds of stuff in theirs.
_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant",
    "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra",
    "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork",
    "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut",
    "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush", "banner", "blanket", "branch", "bridge", "building-other", "bush", "cabinet", "cage",
    "cardboard", "carpet", "ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard", "curtain",
    "desk-stuff", "dirt", "door-stuff", "fence", "floor-marble", "floor-other", "floor-stone", "floor-tile", "floor-wood",
    "flower", "fog", "food-other", "fruit", "furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves",
    "light", "mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper", "pavement", "pillow",
    "plant-other", "plastic", "platform", "playingfield", "railing", "railroad", "river", "road", "rock", "roof", "rug",
    "salad", "sand", "sea", "shelf", "sky-other", "skyscraper", "snow", "solid-other", "stairs", "stone", "straw",
    "structural-other", "table", "tent", "textile-other", "towel", "tree", "vegetable", "wall-brick", "wall-concrete",
    "wall-other", "wall-panel", "wall-stone", "wall-tile", "wall-wood", "water-other", "waterdrops", "window-blind",
    "window-other", "wood",
)  # fmt: skip
LABELS = LabelSet(_NAMES, tuple((r, g, b) for r, g, b in voc_colors(len(_NAMES) + 1)[1:]))
_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)  # mask values of things that COCO named and never labelled
_CONVERTED = "_labelTrainIds"


class CocoStuff(Paired):
    """`train2017/*.jpg` (or `images/train2017/…`) with the index PNGs of stuffthingmaps_trainval2017.zip in
    `stuffthingmaps/train2017/` or `annotations/train2017/`; val alike.

    Their values are COCO's category ids less one, and 255. Where `*_labelTrainIds.png`, as mmsegmentation converts them, are
    there, these are read: class k is the value k. The test split's labels are not public: "test" is "val".

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.

    Raises:
        UserError: a folder is missing or empty, an image has no mask or a mask no image.
    """

    def __init__(self, split: str, root: str) -> None:
        folder = existing(root)
        read = "train" if split == "train" else "val"
        part = f"{read}2017"
        photos = first_folder(folder, f"images/{part}", part)
        masks = first_folder(folder, f"stuffthingmaps/{part}", f"annotations/{part}")
        if photos is None or masks is None:
            what = f"unpack COCO's {part}.zip into {folder}/images"
            if photos is not None:
                what = f"unpack stuffthingmaps_trainval2017.zip into {folder}/stuffthingmaps"
            raise UserError(
                f"data.root: {folder / ('images' if photos is None else 'stuffthingmaps') / part} is missing; {what}"
            )
        converted = patterns.exists(folder, f"{masks}/*{_CONVERTED}.png")
        pairs = in_folders(folder, photos, masks, "", mask_tail=_CONVERTED if converted else "")
        lookup = index_lookup(LABELS.num_classes, [], LABELS.ignore_index) if converted else by_raw_value()
        super().__init__(folder, read, LABELS, pairs, lookup)


def by_raw_value() -> npt.NDArray[np.uint8]:
    """The class of each value of the released masks."""
    lookup = np.full(65536, NO_CLASS, np.uint8)
    lookup[[value for value in range(182) if value not in _UNUSED]] = range(LABELS.num_classes)
    lookup[255] = LABELS.ignore_index
    return lookup
