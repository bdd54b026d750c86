"""`CamVid` reads street scenes from a car, 11 classes (Brostow et al. 2009), in the layout of SegNet's release."""

from __future__ import annotations

from src.data.formats.folder import Folder

# SegNet's order and colours (Badrinarayanan et al. 2017).
_CLASSES: dict[str, list[int]] = {
    "sky": [128, 128, 128],
    "building": [128, 0, 0],
    "pole": [192, 192, 128],
    "road": [128, 64, 128],
    "pavement": [60, 40, 222],
    "tree": [128, 128, 0],
    "sign_symbol": [192, 128, 128],
    "fence": [64, 64, 128],
    "car": [64, 0, 128],
    "pedestrian": [64, 64, 0],
    "bicyclist": [0, 128, 192],
}


class CamVid(Folder):
    """`<root>/<split>/*.jpg|png` with index masks in `<root>/<split>annot/*.png`; 11 is void and ignored.

    A root that has `test/` and `testannot/` is tested on them, any other on val.

    Raises:
        UserError: as `Folder`.
    """

    def __init__(self, split: str, root: str) -> None:
        super().__init__(
            split, root, list(_CLASSES), list(_CLASSES.values()), images="{split}", masks="{split}annot", ignore=[11],
            mask_format="index",
        )  # fmt: skip
