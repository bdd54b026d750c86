"""`Kitti` reads KITTI's 200 street scenes with Cityscapes' classes (Alhaija et al. 2018), in the official layout."""

from __future__ import annotations

from pydantic import NonNegativeInt

from src.data.formats.cityscapes import LABELS, by_official_id
from src.data.formats.paired import Drawn, in_folders
from src.data.layout.patterns import existing
from src.data.layout.splits import ProperShare


class Kitti(Drawn):
    """`<root>/training/image_2/*_10.png` with `<root>/training/semantic/*_10.png`, whose values are Cityscapes' official ids.

    Ids that are none of the 19 training classes are ignored. Frames that are not labelled (`*_11.png` of the stereo
    benchmark, which has the same folders) are left out. The test split's labels are not public: val is a drawn share of the
    200 images, for "test" too.

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.
        val_fraction: the share that validates.
        split_seed: of that draw; the run's seed does not change it.

    Raises:
        UserError: a folder is missing or empty, an image has no mask or a mask no image.
    """

    def __init__(self, split: str, root: str, val_fraction: ProperShare = 0.2, split_seed: NonNegativeInt = 0) -> None:
        folder = existing(root)
        mend = f"unpack data_semantics.zip into {folder}"
        pairs = in_folders(folder, "training/image_2", "training/semantic", mend, "_10", "_10")
        super().__init__(folder, split, LABELS, pairs, by_official_id(), val_fraction, split_seed)
