"""`BDD100K` reads 8,000 street scenes with Cityscapes' classes (Yu et al. 2020), in the official layouts."""

from __future__ import annotations

from src.data.formats.cityscapes import LABELS
from src.data.formats.paired import Paired, first_folder, in_folders
from src.data.layout.patterns import existing
from src.data.readers.images import index_lookup

_LAYOUTS = (  # of photos and masks, and what masks are called behind the photo's name; the first where none is there
    ("images/10k", "labels/sem_seg/masks", ""),
    ("seg/images", "seg/labels", "_train_id"),
)


class BDD100K(Paired):
    """`images/10k/{train,val}/*.jpg` with `labels/sem_seg/masks/{train,val}/*.png`, or of the earlier release
    `seg/images/{train,val}/*.jpg` with `seg/labels/{train,val}/*_train_id.png`.

    Values are Cityscapes' training ids, 255 is ignored. The test split's labels are not public, so "test" is "val".

    Args:
        split: "train", "val" or "test".
        root: a folder with `bdd100k`, or that folder itself.

    Raises:
        UserError: a folder is missing or empty, an image has no mask or a mask no image.
    """

    def __init__(self, split: str, root: str) -> None:
        top = existing(root)
        folder = top / (first_folder(top, "bdd100k") or "")
        read = "train" if split == "train" else "val"
        images, masks, tail = next((layout for layout in _LAYOUTS if (folder / layout[1]).is_dir()), _LAYOUTS[0])
        mend = f"unpack bdd100k_images_10k.zip and bdd100k_sem_seg_labels_trainval.zip into {top}"
        pairs = in_folders(folder, f"{images}/{read}", f"{masks}/{read}", mend, mask_tail=tail)
        super().__init__(folder, read, LABELS, pairs, index_lookup(LABELS.num_classes, [], LABELS.ignore_index))
