"""`ISAID` reads DOTA's aerial photos with 15 kinds of things and the background (Zamir et al. 2019)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.data.formats.paired import Paired, first_folder, in_folders
from src.data.labels import LabelSet
from src.data.layout.patterns import existing
from src.data.readers.color_masks import ColorTable
from src.data.readers.images import index_lookup

# Names and colours of iSAID's masks.
_CLASSES: dict[str, tuple[int, int, int]] = {
    "background": (0, 0, 0),
    "ship": (0, 0, 63),
    "storage_tank": (0, 63, 63),
    "baseball_diamond": (0, 63, 0),
    "tennis_court": (0, 63, 127),
    "basketball_court": (0, 63, 191),
    "ground_track_field": (0, 63, 255),
    "bridge": (0, 127, 63),
    "large_vehicle": (0, 127, 127),
    "small_vehicle": (0, 0, 127),
    "helicopter": (0, 0, 191),
    "swimming_pool": (0, 0, 255),
    "roundabout": (0, 191, 127),
    "soccer_ball_field": (0, 127, 191),
    "plane": (0, 127, 255),
    "harbor": (0, 100, 155),
}
_TAIL = "_instance_color_RGB"


class ISAID(Paired):
    """`<root>/{train,val}/images/*.png` with colour masks in `{train,val}/Semantic_masks/images/*_instance_color_RGB.png`; or
    the patches that mmsegmentation cuts of them, `img_dir/{train,val}/*.png` with index masks in `ann_dir/{train,val}/`.

    What was added to patches at the edge of a photo has the value 255, which is ignored. The test split's labels are not
    public, so "test" is "val".

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.

    Raises:
        UserError: a folder is missing or empty, an image has no mask or a mask no image.
    """

    def __init__(self, split: str, root: str) -> None:
        folder = existing(root)
        read = "train" if split == "train" else "val"
        cut = (folder / "ann_dir").is_dir()
        if cut:
            images, masks = f"img_dir/{read}", f"ann_dir/{read}"
        else:
            images = first_folder(folder, f"{read}/images/images") or f"{read}/images"
            masks = f"{read}/Semantic_masks/images"
        mend = f"unpack DOTA's photos into {folder / read / 'images'}, and iSAID's Semantic_masks beside them"
        pairs = in_folders(folder, images, masks, mend, mask_tail=_TAIL)
        labels = LabelSet(tuple(_CLASSES), tuple(_CLASSES.values()))
        super().__init__(folder, read, labels, pairs, index_lookup(len(_CLASSES), [], labels.ignore_index))
        self._colors = None if cut else ColorTable(labels)

    def _read_mask(self, file: Path) -> npt.NDArray[np.uint8]:
        return super()._read_mask(file) if self._colors is None else self._colors.read(file)
