"""`GeoTiff` cuts scenes of many bands and 8, 16 or 32 bits into tiles, in GeoTIFF or any raster that GDAL reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt, PositiveInt

from src.data.formats.tiled_scenes import EvalOverlap, EvalWindow, Tile, TiledScenes, check_windows
from src.data.layout import splits
from src.data.layout.pairs import match
from src.data.layout.patterns import Items, existing, split_folder
from src.data.layout.splits import ProperShare
from src.data.readers.images import HEIC_SUFFIXES, IMAGE_SUFFIXES
from src.data.readers.label_values import LabelValues
from src.data.readers.raster import Raster, check_same_pixels, read_window
from src.data.warn_once import warn_once
from src.data.windows import OVERLAP, Window
from src.errors import UserError
from src.optional_packages import needs

_TIFF = (".tif", ".tiff")
SUFFIXES = (*_TIFF, ".jp2", *(suffix for suffix in IMAGE_SUFFIXES if suffix not in (*_TIFF, *HEIC_SUFFIXES)))
_RASTERS = Items(SUFFIXES, flat=True)


class GeoTiff(TiledScenes):
    """One split of a set of scenes with label rasters; a sample is a tile, read by its window alone.

    Splits are folders, where `images` has `{split}`, or scenes: those in the lists `val` and `test`, or a seeded share.
    Training tiles all have the size `tile`: the last of a row or column is moved inwards. Validation and test read the
    overlapping windows that `predict` reads, and each pixel counts once, from the window that `predict` keeps it of: in the
    others it is ignored. So scores are those of what `predict` writes.

    Pixels without data (the nodata value in all bands, an alpha or mask band, NaN; see `read_window`) are ignored, and so is
    the label raster's nodata value unless `labels` has it or it is 0: tools that burn polygons declare the 0 around them
    as nodata, and it is what `others` says like any value that is not listed. `ignore` ignores it.

    Args:
        split: "train", "val" or "test"; without test scenes, "test" reads "val".
        root: the data set's folder.
        labels: each class's label value or values, in the order of the classes.
        colors: RGB of each class; None takes evenly spread hues.
        others: what label values are that `labels` does not list: the class background (which is put before the others
            unless listed), or ignored.
        ignore: label values that neither train nor count.
        images, masks: a folder, or a pattern below root. `{split}` stands for the split's name; what `*`, `?`, `[…]` and
            `**` stand for is the scene's name and pairs images with masks, e.g. `*_image.tif` with `*_label.tif`.
        bands: numbers from 1, in the order of the channels.
        intensity: the lowest and highest value that the model tells apart; None is [0, 255], for 8 bits only.
        tile: height and width of training tiles; None reads whole scenes.
        eval_window, eval_overlap: side of the windows in validation and test, and the pixels that neighbours share; as
            `window` and `overlap` of `predict`. None takes tiles that share nothing, smaller ones at the right and below.
        val, test: names of scenes that validate and test.
        val_fraction, test_fraction: where there are no lists, the share of the scenes that validate and test.
        split_seed: of these shares; the run's seed does not change them.
        group: regular expression; scenes in whose names its first group is the same (one city, one flight) stay in one split.

    Raises:
        UserError: files are missing or stand alone, cannot be read, have not the bands, do not lie on each other, or a
            split is empty.
    """

    HOW_READ = (
        "bands",
        "intensity",
        "tile",
        "eval_window",
        "eval_overlap",
    )  # keys that belong to a model; see `trained_on`
    HOW_LABELLED = ("labels", "others", "ignore")

    def __init__(
        self,
        split: str,
        root: str,
        labels: dict[str, NonNegativeInt | list[NonNegativeInt]],
        colors: list[list[int]] | None = None,
        others: Literal["background", "ignore"] = "background",
        ignore: list[NonNegativeInt] | None = None,
        images: str = "images/{split}",
        masks: str = "masks/{split}",
        bands: Annotated[list[PositiveInt], Field(min_length=1)] | None = None,
        intensity: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None,
        tile: Tile | None = None,
        eval_window: EvalWindow | None = None,
        eval_overlap: EvalOverlap = OVERLAP,
        val: list[str] | None = None,
        test: list[str] | None = None,
        val_fraction: ProperShare = 0.2,
        test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        split_seed: NonNegativeInt = 0,
        group: str | None = None,
    ) -> None:
        needs("rasterio", "geo")
        self._values = LabelValues(labels, colors, others, ignore)
        if intensity is not None and not intensity[0] < intensity[1]:
            raise UserError(f"data.dataset.intensity: should be [low, high], not {list(intensity)}")
        check_windows(eval_window, eval_overlap)
        folder, read = existing(root), split
        folders = "{split}" in images
        if folders:
            read = split_folder(folder, images, split)
        pairs = match(folder, images.replace("{split}", read), masks.replace("{split}", read), _RASTERS, _RASTERS)
        names = [pair.name for pair in pairs]
        self.group = group
        known = dict(zip(names, splits.grouped(names, group), strict=True)) if group is not None else {}
        self.drawn = not folders and val is None and test is None
        if not folders:
            if self.drawn:
                groups = [known.get(name, name) for name in names]
                shares = splits.draw(names, val_fraction, test_fraction, split_seed, groups, "scenes", splits.FOLDERS)
            else:
                shares = splits.listed(names, val, test, "scenes", splits.FOLDERS)
            read = "val" if split == "test" and not len(shares["test"]) else split
            pairs = [pairs[i] for i in shares[read]]
        self.groups = {known[pair.name]: pair.name for pair in pairs if pair.name in known}
        self._subjects = known
        self._zeros = 0  # label rasters that declare 0 as nodata
        super().__init__(
            folder, read, self._values.label_set, pairs, bands or [1, 2, 3], intensity, tile, eval_window, eval_overlap
        )
        if self._zeros and others == "background":
            warn_once(
                f"label rasters declare 0 as no data ({self._zeros} of {len(pairs)} of the split {self.split!r}); it is read "
                "as background, like every value that data.dataset.labels does not list (data.dataset.ignore=[0] ignores it)",
                kind="label rasters declare 0",
            )

    def subject(self, index: int) -> str | None:
        """What its scene is of."""
        return self._subjects.get(self.whole(index))

    def _check_truth(self, truth: Raster, image: Raster, file: Path) -> None:
        check_same_pixels(image, truth)
        if truth.count != 1:
            raise UserError(f"{file}: label raster has {truth.count} bands; write one band of class numbers")
        self._zeros += truth.nodata == 0 and 0 not in self._values.listed

    def _truth(self, truth: Raster, window: Window, file: Path) -> npt.NDArray[np.uint8]:
        read, unlabelled = read_window(truth, [1], window, (0, 0))
        values, no_data = read[0].numpy(), truth.nodata
        if no_data == 0 or no_data in self._values.listed:  # what it stands for, the table says
            unlabelled &= values != no_data
        mask = self._values.mask(np.where(unlabelled, 0, values), file)
        mask[unlabelled] = self.label_set.ignore_index
        return mask
