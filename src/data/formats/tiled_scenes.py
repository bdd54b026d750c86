"""`TiledScenes` cuts scenes into tiles to train on, and into the windows that `predict` reads to validate and test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from src.data.labels import LabelSet
from src.data.layout.pairs import Pair
from src.data.readers.raster import Raster, check_bands, open_raster, read_window, usual_range
from src.data.windows import Window, parts
from src.errors import UserError

_KEY = "data.dataset.bands"

Tile = Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
EvalWindow = Annotated[int, Field(ge=64, multiple_of=32)]
EvalOverlap = Annotated[int, Field(ge=0, multiple_of=32)]


class TiledScenes(ABC):
    """One split of scenes with label rasters; a sample is a tile, read by its window alone. A format finds the scenes and
    says how their labels are read.

    Training tiles all have the size `tile`: the last of a row or column is moved inwards. Validation and test read windows,
    and each pixel counts once, from the window that `predict` keeps it of: in the others it is ignored. Pixels without data
    are ignored, see `read_window`.

    Args:
        root: the data set's folder.
        split: the split that is read.
        labels: the classes.
        pairs: the scenes, their files relative to `root`.
        bands: numbers from 1, in the order of the channels.
        intensity: the lowest and highest value that the model tells apart; None is [0, 255], for 8 bits only.
        tile: height and width of training tiles; None reads whole scenes.
        eval_window, eval_overlap: side of the windows in validation and test, and the pixels that neighbours share. None
            takes tiles that share nothing, smaller ones at the right and below.

    Raises:
        UserError: a file cannot be read, or has not the bands.
    """

    def __init__(
        self, root: Path, split: str, labels: LabelSet, pairs: Sequence[Pair], bands: Sequence[int],
        intensity: Sequence[float] | None, tile: Sequence[int] | None, eval_window: int | None, eval_overlap: int,
    ) -> None:  # fmt: skip
        self.split, self.label_set = split, labels
        self._root, self._pairs, self._bands = root, list(pairs), tuple(bands)
        self.channels = len(self._bands)
        self.intensity = (0.0, 255.0) if intensity is None else (float(intensity[0]), float(intensity[1]))
        self.dtype = ""  # of all bands that are read
        windows = [
            _cut(*self._open(pair, intensity is None), tile, eval_window, eval_overlap, self.split) for pair in pairs
        ]
        # Arrays, not lists of tuples: nothing per sample that worker processes would copy on reference.
        self._scene_of = np.repeat(np.arange(len(pairs)), [len(listed) for listed in windows])
        self._windows = np.concatenate(windows)

    @abstractmethod
    def _check_truth(self, truth: Raster, image: Raster, file: Path) -> None:
        """Checks an open label raster by its header.

        Raises:
            UserError: it does not fit its image, or is none; names `file`.
        """

    @abstractmethod
    def _truth(self, truth: Raster, window: Window, file: Path) -> npt.NDArray[np.uint8]:
        """Classes [h, w] of a window of an open label raster; messages name `file`."""

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
            mask = self._truth(dataset, window, self._root / pair.mask)
        mask[empty] = self.label_set.ignore_index
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
            self._check_truth(label, image, truth)
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


def check_windows(side: int | None, overlap: int) -> None:
    """Checks `eval_window` and `eval_overlap` against each other.

    Raises:
        UserError: windows would share more than half of their side.
    """
    if side is not None and overlap * 2 > side:
        raise UserError(f"data.dataset.eval_overlap: {overlap} is more than half of eval_window={side}; take less")


def _cut(
    height: int, width: int, tile: Sequence[int] | None, side: int | None, overlap: int, split: str
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
