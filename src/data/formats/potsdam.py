"""`Potsdam` reads ISPRS' city of 38 tiles at 5 cm, 6 classes, in the official layout."""

from __future__ import annotations

from typing import Literal

from src.data.formats.isprs import Archive, City, Eroded, Isprs
from src.data.formats.tiled_scenes import EvalOverlap, EvalWindow, Tile
from src.data.windows import OVERLAP

# The contest's tiles to train and to test with.
_TRAIN = (
    "2_10", "2_11", "2_12", "3_10", "3_11", "3_12", "4_10", "4_11", "4_12", "5_10", "5_11", "5_12", "6_7", "6_8", "6_9",
    "6_10", "6_11", "6_12", "7_7", "7_8", "7_9", "7_10", "7_11", "7_12",
)  # fmt: skip
_TEST = (
    "2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15", "5_13", "5_14", "5_15", "6_13", "6_14", "6_15", "7_13",
)  # fmt: skip
_ORTHOS = {
    "rgb": ("2_Ortho_RGB", "RGB", (1, 2, 3)),
    "irrg": ("3_Ortho_IRRG", "IRRG", (1, 2, 3)),
    "rgbir": ("4_Ortho_RGBIR", "RGBIR", (1, 2, 3, 4)),
}
_WHOLE = Archive(
    ("5_Labels_all", "5_Labels_all/5_Labels_all", "5_Labels_for_participants", ""),
    "top_potsdam_{}_label.tif",
    "5_Labels_all.zip",
)
_ERODED = Archive(
    ("5_Labels_all_noBoundary", "5_Labels_all_noBoundary/5_Labels_all_noBoundary",
     "5_Labels_for_participants_no_Boundary", ""),
    "top_potsdam_{}_label_noBoundary.tif",
    "5_Labels_all_noBoundary.zip",
)  # fmt: skip


class Potsdam(Isprs):
    """`<root>/2_Ortho_RGB/top_potsdam_2_10_RGB.tif` with `<root>/5_Labels_all/top_potsdam_2_10_label.tif`, 6000x6000 pixels.

    Train is the contest's 24 tiles and val its 14 test tiles, which "test" reads too. Training tiles, and windows in
    validation, are cut as `data=geotiff` cuts them.

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.
        ortho: which photos: `rgb`, `irrg` (infrared, red, green; 3_Ortho_IRRG), or `rgbir` of four channels (4_Ortho_RGBIR).
        ignore_clutter: ignore clutter, so that there are 5 classes.
        eroded: which splits read the masks without boundaries (5_Labels_all_noBoundary), where the contest scores: `none`;
            `eval`, val and test; or `all`, as mmsegmentation does.
        tile: height and width of training tiles; None reads whole scenes.
        eval_window, eval_overlap: side of the windows in validation and test, and the pixels that neighbours share; None
            takes tiles that share nothing.

    Raises:
        UserError: a file is missing or cannot be read, or rasterio is not installed.
    """

    HOW_READ = ("ortho", *Isprs.HOW_READ)

    def __init__(
        self,
        split: str,
        root: str,
        ortho: Literal["rgb", "irrg", "rgbir"] = "rgb",
        ignore_clutter: bool = False,
        eroded: Eroded = "none",
        tile: Tile | None = None,
        eval_window: EvalWindow | None = None,
        eval_overlap: EvalOverlap = OVERLAP,
    ) -> None:
        folder, ending, bands = _ORTHOS[ortho]
        images = Archive((folder, f"{folder}/{folder}", ""), f"top_potsdam_{{}}_{ending}.tif", f"{folder}.zip")
        city = City(_TRAIN, _TEST, images, _WHOLE, _ERODED)
        super().__init__(city, split, root, bands, ignore_clutter, eroded, tile, eval_window, eval_overlap)
