"""`PascalContext` reads Pascal VOC 2010 with the labels of Mottaghi et al. (2014), 59 classes and the background."""

from __future__ import annotations

from typing import Literal

from src.data.formats.paired import Paired
from src.data.formats.voc import check_files, listed, release
from src.data.labels import LabelSet, voc_colors
from src.data.layout.pairs import Pair
from src.data.layout.patterns import existing
from src.data.readers.images import index_lookup
from src.data.readers.label_values import class_lookup
from src.errors import UserError

# In the order of the ids that the 459 labels have, which is that of the converted masks' values. Earlier mmsegmentation
# names the same values in another order.
_NAMES = (
    "background", "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book", "bottle", "building",
    "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer", "cow", "cup", "curtain", "dog", "door", "fence",
    "floor", "flower", "food", "grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse", "person",
    "plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky", "snow", "sofa",
    "table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water", "window", "wood",
)  # fmt: skip
_MASKS, _LISTS = "SegmentationClassContext", "ImageSets/SegmentationContext"


class PascalContext(Paired):
    """`JPEGImages/*.jpg` with `SegmentationClassContext/*.png`, split by the lists of `ImageSets/SegmentationContext`, as
    mmsegmentation's converter writes them with the toolkit detail.

    The value 0 is the background and 1 to 59 are the classes. There is no test list: "test" is "val".

    Args:
        split: "train", "val" or "test".
        root: a folder with `VOCdevkit/VOC2010` or `VOC2010`, or that folder itself.
        classes: 60 with the background, 59 where it is ignored.

    Raises:
        UserError: a folder, list, image or mask is missing.
    """

    def __init__(self, split: str, root: str, classes: Literal[59, 60] = 60) -> None:
        top = existing(root)
        folder = release(top, 2010)
        if folder is None:
            raise UserError(
                f"data.root: neither VOCdevkit/VOC2010 nor JPEGImages is in {top}; unpack VOCtrainval_03-May-2010.tar into it"
            )
        for place in (_MASKS, _LISTS):
            if not (folder / place).is_dir():
                raise UserError(
                    f"{folder / place}: is missing; mmsegmentation's tools/dataset_converters/pascal_context.py writes it"
                )
        read = "train" if split == "train" else "val"
        names = listed(folder, read, _LISTS)
        pairs = [Pair(name, f"JPEGImages/{name}.jpg", f"{_MASKS}/{name}.png") for name in names]
        check_files(folder, pairs, _LISTS)
        colors = tuple((r, g, b) for r, g, b in voc_colors(len(_NAMES)))
        if classes == 60:
            labels = LabelSet(_NAMES, colors)
            lookup = index_lookup(len(_NAMES), [], labels.ignore_index)
        else:
            labels = LabelSet(_NAMES[1:], colors[1:])
            lookup = class_lookup(labels, None, [], reduce_zero_label=True)
        super().__init__(folder, read, labels, pairs, lookup)
