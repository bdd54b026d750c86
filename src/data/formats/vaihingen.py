"""`Vaihingen` reads ISPRS' town of 33 tiles at 9 cm in infrared, red and green, 6 classes, in the official layout."""

from __future__ import annotations

from src.data.formats.isprs import Archive, City, Eroded, Isprs
from src.data.formats.tiled_scenes import EvalOverlap, EvalWindow, Tile
from src.data.windows import OVERLAP

# The contest's areas to train and to test with.
_TRAIN = (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37)
_TEST = (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38)
_RELEASE = "ISPRS_semantic_labeling_Vaihingen"
_IMAGES = Archive(("top", f"{_RELEASE}/top"), "top_mosaic_09cm_{}.tif", f"{_RELEASE}.zip")
_WHOLE = Archive(
    (f"{_RELEASE}_ground_truth_COMPLETE", "", "gts_for_participants", f"{_RELEASE}/gts_for_participants"),
    "top_mosaic_09cm_{}.tif",
    f"{_RELEASE}_ground_truth_COMPLETE.zip",
)
_ERODED = Archive(
    (f"{_RELEASE}_ground_truth_eroded_COMPLETE", f"{_RELEASE}_ground_truth_eroded_for_participants", ""),
    "top_mosaic_09cm_{}_noBoundary.tif",
    f"{_RELEASE}_ground_truth_eroded_COMPLETE.zip",
)
_CITY = City([f"area{number}" for number in _TRAIN], [f"area{number}" for number in _TEST], _IMAGES, _WHOLE, _ERODED)


class Vaihingen(Isprs):
    """`<root>/top/top_mosaic_09cm_area1.tif` with `<root>/ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE/` (or for
    training alone `gts_for_participants/`) `top_mosaic_09cm_area1.tif`, of about 2500x2000 pixels.

    Train is the contest's 16 areas and val its 17 test areas, which "test" reads too. Training tiles, and windows in
    validation, are cut as `data=geotiff` cuts them. The channels are infrared, red and green.

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.
        ignore_clutter: ignore clutter, so that there are 5 classes.
        eroded: which splits read the masks without boundaries (…_ground_truth_eroded_COMPLETE), where the contest scores:
            `none`; `eval`, val and test; or `all`, as mmsegmentation does.
        tile: height and width of training tiles; None reads whole scenes.
        eval_window, eval_overlap: side of the windows in validation and test, and the pixels that neighbours share; None
            takes tiles that share nothing.

    Raises:
        UserError: a file is missing or cannot be read, or rasterio is not installed.
    """

    def __init__(
        self,
        split: str,
        root: str,
        ignore_clutter: bool = False,
        eroded: Eroded = "none",
        tile: Tile | None = None,
        eval_window: EvalWindow | None = None,
        eval_overlap: EvalOverlap = OVERLAP,
    ) -> None:
        super().__init__(_CITY, split, root, (1, 2, 3), ignore_clutter, eroded, tile, eval_window, eval_overlap)
