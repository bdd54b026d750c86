"""`GTA5` reads street scenes out of a game with Cityscapes' classes (Richter et al. 2016), in the official layout."""

from __future__ import annotations

from pydantic import NonNegativeInt

from src.data.formats.cityscapes import LABELS, by_official_id
from src.data.formats.paired import Drawn, in_folders
from src.data.layout.patterns import existing
from src.data.layout.splits import ProperShare


class GTA5(Drawn):
    """`<root>/images/*.png` with palette masks in `<root>/labels/*.png`, whose values are Cityscapes' official ids.

    Ids that are none of the 19 training classes are ignored. Val is a drawn share, for "test" too; the official `split.mat`
    is not read.

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.
        val_fraction: the share that validates.
        split_seed: of that draw; the run's seed does not change it.

    Raises:
        UserError: a folder is missing or empty, an image has no mask or a mask no image.
    """

    def __init__(self, split: str, root: str, val_fraction: ProperShare = 0.05, split_seed: NonNegativeInt = 0) -> None:
        folder = existing(root)
        mend = f"unpack the parts 01_images.zip and 01_labels.zip to 10_… into {folder}"
        pairs = in_folders(folder, "images", "labels", mend)
        super().__init__(folder, split, LABELS, pairs, by_official_id(), val_fraction, split_seed)
