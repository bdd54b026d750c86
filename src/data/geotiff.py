"""Scenes of many bands and 8, 16 or 32 bits in GeoTIFF (or any raster that GDAL reads), cut into tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from src.data.images import IMAGE_SUFFIXES
from src.data.label_values import LabelValues
from src.data.raster import check_bands, check_same_grid, opened, read_window, usual_range
from src.data.said import say_once
from src.data.volume_pairs import Pair, assign, find_pairs, split_folder
from src.errors import UserError
from src.extras import needs
from src.windows import Window

SUFFIXES = (*IMAGE_SUFFIXES, ".jp2")
_KEY = "data.dataset.bands"


class GeoTiff:
    """One split of a set of scenes with label rasters; a sample is a tile, read by its window alone.

    Splits are folders, where `images` has `{split}`, or scenes: those in the lists `val` and `test`, or a seeded share.
    Training tiles all have the size `tile`: the last of a row or column is moved inwards. Validation and test tiles at
    the right and below are as small as what is left, so that each pixel counts once.

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
        images, masks: a folder, or a pattern below root. `{split}` stands for the split's name; what `*` stands for is
            the scene's name and pairs images with masks, e.g. `*_image.tif` with `*_label.tif`.
        bands: numbers from 1, in the order of the channels.
        intensity: the lowest and highest value that the model tells apart; None is [0, 255], for 8 bits only.
        tile: height and width of tiles; None reads whole scenes.
        val, test: names of scenes that validate and test.
        val_fraction, test_fraction: where there are no lists, the share of the scenes that validate and test.
        split_seed: of these shares; the run's seed does not change them.

    Raises:
        UserError: files are missing or stand alone, cannot be read, have not the bands, do not lie on each other, or a
            split is empty.
    """

    HOW_READ = ("bands", "intensity", "tile")  # keys that belong to a model; see `trained_on`
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
        val: list[str] | None = None,
        test: list[str] | None = None,
        val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        split_seed: NonNegativeInt = 0,
    ) -> None:
        needs("rasterio", "geo")
        self._values = LabelValues(labels, colors, others, ignore)
        self.label_set, self.split = self._values.label_set, split
        self._bands = tuple(bands or (1, 2, 3))
        self.channels = len(self._bands)
        if intensity is not None and not intensity[0] < intensity[1]:
            raise UserError(f"data.dataset.intensity: should be [low, high], not {list(intensity)}")
        folders = "{split}" in images
        if folders:
            self.split = split_folder(root, images, split)
        pairs = find_pairs(
            root, images.replace("{split}", self.split), masks.replace("{split}", self.split), SUFFIXES, _is_raster,
            _is_raster,
        )  # fmt: skip
        if not folders:
            names = [pair.name for pair in pairs]
            of = assign(names, val, test, val_fraction, test_fraction, split_seed, "scenes")
            self.split = "val" if split == "test" and "test" not in of else split
            pairs = [pair for pair, its in zip(pairs, of, strict=True) if its == self.split]
        self._pairs = pairs
        self.intensity = (0.0, 255.0) if intensity is None else (float(intensity[0]), float(intensity[1]))
        self.dtype = ""  # of all bands that are read
        self._zeros = 0  # label rasters that declare 0 as nodata
        windows = [self._open(pair, intensity is None, tile) for pair in pairs]
        if self._zeros and others == "background":
            say_once(
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
        """The scene's name and the row and column of the tile's first pixel."""
        top, left, *_ = self._windows[index]
        return f"{self._pairs[self._scene_of[index]].name}_{top}_{left}"

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image [bands, H, W] in the scene's own dtype and mask uint8 [H, W]."""
        pair = self._pairs[self._scene_of[index]]
        window = Window(*map(int, self._windows[index]))
        with opened(pair.image) as dataset:
            image, empty = read_window(dataset, self._bands, window, self.intensity)
        with opened(pair.mask) as dataset:
            read, unlabelled = read_window(dataset, [1], window, (0, 0))
            no_data = dataset.nodata
        values = read[0].numpy()
        if no_data == 0 or no_data in self._values.listed:  # what it stands for, the table says
            unlabelled &= values != no_data
        mask = self._values.mask(np.where(unlabelled, 0, values), pair.mask)
        mask[empty | unlabelled] = self.label_set.ignore_index
        return image, torch.from_numpy(mask)

    def _open(
        self, pair: Pair, eight_bits: bool, tile: list[int] | None
    ) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        """Checks a scene by its headers and gives its windows, int64 [N, 4]."""
        with opened(pair.image) as image, opened(pair.mask) as label:
            check_bands(image, self._bands, pair.image, _KEY)
            check_same_grid(image, label)
            if label.count != 1:
                raise UserError(f"{pair.mask}: label raster has {label.count} bands; write one band of class numbers")
            self._zeros += label.nodata == 0 and 0 not in self._values.listed
            dtype = str(np.result_type(*(image.dtypes[band - 1] for band in self._bands)))
            self.dtype = self.dtype or dtype
            if dtype != self.dtype:
                raise UserError(
                    f"{pair.image}: its bands are {dtype} but those of {self._pairs[0].image} are {self.dtype}; convert one"
                )
            if eight_bits and dtype != "uint8":
                low, high = usual_range(image, self._bands)
                raise UserError(
                    f"data.dataset.intensity: must be given, since {pair.image} is {dtype}; most of its values fit "
                    f"data.dataset.intensity=[{low:.4g},{high:.4g}]"
                )
            height, width = image.height, image.width
        rows = _cuts(height, tile[0] if tile else height, self.split == "train")
        columns = _cuts(width, tile[1] if tile else width, self.split == "train")
        return np.array([(top, left, h, w) for top, h in rows for left, w in columns], np.int64)


def _cuts(length: int, size: int, equal: bool) -> list[tuple[int, int]]:
    """Start and length of parts of at most `size`; `equal` moves the last part inwards instead of cutting it short."""
    starts = range(0, length, size)
    if equal:
        return [(max(0, min(start, length - size)), min(size, length)) for start in starts]
    return [(start, min(size, length - start)) for start in starts]


def _is_raster(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
