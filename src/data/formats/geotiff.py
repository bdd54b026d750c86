"""`GeoTiff` cuts scenes of many bands and 8, 16 or 32 bits into tiles, in GeoTIFF or any raster that GDAL reads."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from src.data.layout import splits
from src.data.layout.pairs import Pair, match
from src.data.layout.patterns import Items, existing, split_folder
from src.data.layout.splits import ProperShare
from src.data.readers.images import HEIC_SUFFIXES, IMAGE_SUFFIXES
from src.data.readers.label_values import LabelValues
from src.data.readers.raster import check_bands, check_same_pixels, open_raster, read_window, usual_range
from src.data.warn_once import warn_once
from src.data.windows import OVERLAP, Window, parts
from src.errors import UserError
from src.optional_packages import needs

_TIFF = (".tif", ".tiff")
SUFFIXES = (*_TIFF, ".jp2", *(suffix for suffix in IMAGE_SUFFIXES if suffix not in (*_TIFF, *HEIC_SUFFIXES)))
_RASTERS = Items(SUFFIXES, flat=True)
_KEY = "data.dataset.bands"


class GeoTiff:
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
        tile: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None = None,
        eval_window: Annotated[int, Field(ge=64, multiple_of=32)] | None = None,
        eval_overlap: Annotated[int, Field(ge=0, multiple_of=32)] = OVERLAP,
        val: list[str] | None = None,
        test: list[str] | None = None,
        val_fraction: ProperShare = 0.2,
        test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        split_seed: NonNegativeInt = 0,
        group: str | None = None,
    ) -> None:
        needs("rasterio", "geo")
        self._values = LabelValues(labels, colors, others, ignore)
        self.label_set, self.split = self._values.label_set, split
        self._bands = tuple(bands or (1, 2, 3))
        self.channels = len(self._bands)
        if intensity is not None and not intensity[0] < intensity[1]:
            raise UserError(f"data.dataset.intensity: should be [low, high], not {list(intensity)}")
        if eval_window is not None and eval_overlap * 2 > eval_window:
            raise UserError(
                f"data.dataset.eval_overlap: {eval_overlap} is more than half of eval_window={eval_window}; take less"
            )
        self._root = existing(root)
        folders = "{split}" in images
        if folders:
            self.split = split_folder(self._root, images, split)
        where = images.replace("{split}", self.split), masks.replace("{split}", self.split)
        pairs = match(self._root, *where, _RASTERS, _RASTERS)
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
            self.split = "val" if split == "test" and not len(shares["test"]) else split
            pairs = [pairs[i] for i in shares[self.split]]
        self._pairs = pairs
        self.groups = {known[pair.name]: pair.name for pair in pairs if pair.name in known}
        self.intensity = (0.0, 255.0) if intensity is None else (float(intensity[0]), float(intensity[1]))
        self.dtype = ""  # of all bands that are read
        self._zeros = 0  # label rasters that declare 0 as nodata
        windows = [
            _cut(*self._open(pair, intensity is None), tile, eval_window, eval_overlap, self.split) for pair in pairs
        ]
        if self._zeros and others == "background":
            warn_once(
                f"label rasters declare 0 as no data ({self._zeros} of {len(pairs)} of the split {self.split!r}); it is read "
                "as background, like every value that data.dataset.labels does not list (data.dataset.ignore=[0] ignores it)",
                kind="label rasters declare 0",
            )
        # Arrays, not lists of tuples: nothing per sample that worker processes would copy on reference.
        self._scene_of = np.repeat(np.arange(len(pairs)), [len(listed) for listed in windows])
        self._windows = np.concatenate(windows)

    def __len__(self) -> int:
        return len(self._windows)

    def name(self, index: int) -> str:
        """The scene's name and the row and column of the first pixel of the tile or window."""
        top, left, *_ = self._windows[index]
        return f"{self._pairs[self._scene_of[index]].name}_{top}_{left}"

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image [bands, H, W] in the scene's own dtype and mask uint8 [H, W]."""
        pair = self._pairs[self._scene_of[index]]
        window, keep = self._part(index)
        with open_raster(self._root / pair.image) as dataset:
            image, empty = read_window(dataset, self._bands, window, self.intensity)
        with open_raster(self._root / pair.mask) as dataset:
            read, unlabelled = read_window(dataset, [1], window, (0, 0))
            no_data = dataset.nodata
        values = read[0].numpy()
        if no_data == 0 or no_data in self._values.listed:  # what it stands for, the table says
            unlabelled &= values != no_data
        mask = self._values.mask(np.where(unlabelled, 0, values), self._root / pair.mask)
        mask[empty | unlabelled] = self.label_set.ignore_index
        kept = np.full_like(mask, self.label_set.ignore_index)
        top, left = keep.top - window.top, keep.left - window.left
        own = np.s_[top : top + keep.height, left : left + keep.width]
        kept[own] = mask[own]
        return image, torch.from_numpy(kept)

    def margin(self, index: int) -> int:
        """Pixels of a sample that are ignored because another sample has them."""
        window, keep = self._part(index)
        return window.height * window.width - keep.height * keep.width

    def whole(self, index: int) -> str:
        """The scene that a sample is cut out of."""
        name: str = self._pairs[self._scene_of[index]].name
        return name

    def _part(self, index: int) -> tuple[Window, Window]:
        """What is read of the scene, and the part of it that counts."""
        numbers = [int(n) for n in self._windows[index]]
        return Window(*numbers[:4]), Window(*numbers[4:])

    def _open(self, pair: Pair, eight_bits: bool) -> tuple[int, int]:
        """Checks a scene by its headers and gives its height and width."""
        scene, truth = self._root / pair.image, self._root / pair.mask
        with open_raster(scene) as image, open_raster(truth) as label:
            check_bands(image, self._bands, scene, _KEY)
            check_same_pixels(image, label)
            if label.count != 1:
                raise UserError(f"{truth}: label raster has {label.count} bands; write one band of class numbers")
            self._zeros += label.nodata == 0 and 0 not in self._values.listed
            dtype = str(np.result_type(*(image.dtypes[band - 1] for band in self._bands)))
            self.dtype = self.dtype or dtype
            if dtype != self.dtype:
                first = self._root / self._pairs[0].image
                raise UserError(f"{scene}: its bands are {dtype} but those of {first} are {self.dtype}; convert one")
            if eight_bits and dtype != "uint8":
                low, high = usual_range(image, self._bands)
                raise UserError(
                    f"data.dataset.intensity: must be given, since {scene} is {dtype}; most of its values fit "
                    f"data.dataset.intensity=[{low:.4g},{high:.4g}]"
                )
            return image.height, image.width


def _cut(
    height: int, width: int, tile: list[int] | None, side: int | None, overlap: int, split: str
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """What is read of a scene, and the part of it that counts: int64 [N, 8], each top, left, height and width."""
    if split != "train" and side is not None:
        listed = [(p.read, p.keep) for p in parts(height, width, side, overlap)]
        numbers = [(r.top, r.left, r.height, r.width, k.top, k.left, k.height, k.width) for r, k in listed]
        return np.array(numbers, np.int64)
    rows = _tiles(height, tile[0] if tile else height, split == "train")
    columns = _tiles(width, tile[1] if tile else width, split == "train")
    return np.array([(top, left, h, w) * 2 for top, h in rows for left, w in columns], np.int64)


def _tiles(length: int, size: int, equal: bool) -> list[tuple[int, int]]:
    """Start and length of parts of at most `size`; `equal` moves the last part inwards instead of cutting it short."""
    starts = range(0, length, size)
    if equal:
        return [(max(0, min(start, length - size)), min(size, length)) for start in starts]
    return [(start, min(size, length - start)) for start in starts]
