"""`Isprs` is what the two cities of ISPRS' 2D semantic labelling contest have in common (Rottensteiner et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from src.data.formats.tiled_scenes import TiledScenes, check_windows
from src.data.labels import LabelSet
from src.data.layout.pairs import Pair
from src.data.layout.patterns import existing
from src.data.readers.raster import Raster, read_window
from src.data.warn_once import warn_once
from src.data.windows import Window
from src.errors import UserError
from src.optional_packages import needs

Eroded = Literal["none", "eval", "all"]
_CLASSES: dict[str, tuple[int, int, int]] = {
    "impervious_surface": (255, 255, 255),
    "building": (0, 0, 255),
    "low_vegetation": (0, 255, 255),
    "tree": (0, 255, 0),
    "car": (255, 255, 0),
    "clutter": (255, 0, 0),
}
_STRAY = 254  # a colour that is none
_LOW, _HIGH = 63, 192  # what channels of 0 and of 255 may be: some masks have (252, 255, 0) for cars


class Archive(NamedTuple):
    """One kind of files of a city: the folders below the root where they may lie, the first of which messages name, a file's
    name with `{}` for the tile's, and the archive that has them."""

    folders: tuple[str, ...]
    file: str
    archive: str

    def find(self, root: Path, tile: str) -> str:
        """A tile's file relative to the root.

        Raises:
            UserError: it is in none of the folders.
        """
        name = self.file.format(tile)
        found = next((path for f in self.folders if (root / (path := f"{f}/{name}" if f else name)).is_file()), None)
        if found is None:
            place = root / self.folders[0]
            raise UserError(f"{place / name}: is missing; unpack {self.archive} into {place}")
        return found


class City(NamedTuple):
    """The contest's tiles to train and to test with, and where their photos, their masks and those without boundaries lie."""

    train: Sequence[str]
    test: Sequence[str]
    images: Archive
    whole: Archive
    eroded: Archive


class Isprs(TiledScenes):
    """One split of a city's tiles with colour masks, cut as `TiledScenes` says.

    Black pixels of masks, the boundaries that eroded ones leave out, are ignored, and so are the few that are near no class's
    colour.

    Args:
        city: its tiles and files.
        split: "train", "val" or "test", which is "val".
        root: the data set's folder.
        bands: of the images, numbers from 1.
        ignore_clutter: whether clutter is ignored and no class.
        eroded: which splits read the masks without boundaries.
        tile, eval_window, eval_overlap: as in `TiledScenes`.

    Raises:
        UserError: a file is missing or cannot be read, a mask has not its image's size, or rasterio is not installed.
    """

    HOW_READ: tuple[str, ...] = ("tile", "eval_window", "eval_overlap")  # keys that belong to a model; see `trained_on`
    HOW_LABELLED = ("ignore_clutter",)

    def __init__(
        self, city: City, split: str, root: str, bands: Sequence[int], ignore_clutter: bool, eroded: Eroded,
        tile: Sequence[int] | None, eval_window: int | None, eval_overlap: int,
    ) -> None:  # fmt: skip
        needs("rasterio", "geo")
        check_windows(eval_window, eval_overlap)
        folder, read = existing(root), "train" if split == "train" else "val"
        masks = city.eroded if eroded == "all" or (eroded == "eval" and read == "val") else city.whole
        tiles = city.train if read == "train" else city.test
        chosen = {name: color for name, color in _CLASSES.items() if not (ignore_clutter and name == "clutter")}
        labels = LabelSet(tuple(chosen), tuple(chosen.values()))
        # By the bits of a colour whose channels are 0 or 255.
        self._of_corner = np.full(8, _STRAY, np.uint8)
        for color in [(0, 0, 0), *_CLASSES.values()]:
            self._of_corner[_corner(np.array(color)[:, None])] = labels.ignore_index
        for number, color in enumerate(chosen.values()):
            self._of_corner[_corner(np.array(color)[:, None])] = number
        pairs = [Pair(name, city.images.find(folder, name), masks.find(folder, name)) for name in tiles]
        super().__init__(folder, read, labels, pairs, bands, None, tile, eval_window, eval_overlap)

    def _check_truth(self, truth: Raster, image: Raster, file: Path) -> None:
        if truth.count < 3:
            raise UserError(f"{file}: has {truth.count} bands, and the contest's masks have three; unpack it again")
        if (truth.height, truth.width) != (image.height, image.width):
            raise UserError(
                f"{file}: mask is {truth.width}x{truth.height} but its image {image.name} is {image.width}x{image.height}; "
                "unpack both again"
            )

    def _truth(self, truth: Raster, window: Window, file: Path) -> npt.NDArray[np.uint8]:
        pixels = read_window(truth, [1, 2, 3], window, (0, 255))[0].numpy()
        mask: npt.NDArray[np.uint8] = self._of_corner[_corner(pixels)]
        stray = ((pixels > _LOW) & (pixels < _HIGH)).any(axis=0) | (mask == _STRAY)
        if stray.any():
            row, column = np.argwhere(stray)[0]
            color = ",".join(map(str, pixels[:, row, column].tolist()))
            warn_once(
                f"{file}: colour {color} in row {window.top + row}, column {window.left + column} is near no class's; such "
                "pixels are ignored",
                kind="colours of no class",
            )
            mask[stray] = self.label_set.ignore_index
        return mask


def _corner(pixels: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """The number of the nearest corner of the cube of colours, of [3, …] in 0 to 255."""
    high = (pixels >= 128).astype(np.uint8)
    corner: npt.NDArray[np.integer] = 4 * high[0] + 2 * high[1] + high[2]
    return corner
