"""`Outlines` reads photos whose labels are shapes in a labelling tool's own files."""

from __future__ import annotations

import binascii
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import NonNegativeInt
from torch import Tensor

from src.data.formats import labelme, labelstudio, supervisely, via
from src.data.formats.annotated import Photo
from src.data.formats.painting import paint
from src.data.labels import LabelSet, voc_colors
from src.data.layout import splits
from src.data.layout.class_files import check_names
from src.data.layout.exports import check_names_photos, contents, split_folders
from src.data.layout.patterns import existing
from src.data.layout.splits import ProperShare
from src.data.readers.images import read_rgb
from src.errors import UserError
from src.files.untrusted import shown

_READERS = {
    "labelme": labelme.photos,
    "labelstudio": labelstudio.photos,
    "supervisely": supervisely.photos,
    "via": via.photos,
}
_BACKGROUND = ("background", "_background_")
_IGNORED = ("ignore", "__ignore__")
_WRONG = (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, SyntaxError, binascii.Error,
          Image.DecompressionBombError)  # fmt: skip


class Outlines:
    """One split of the photos that a labelling tool's files in `root` describe.

    Class 0 is the background, where nothing is drawn. Shapes are painted in the order of the file, so that the last one is
    on top; those called `_background_` or `__ignore__` are background and ignored pixels. Points are no shapes. Folders named
    train, val (or valid) and test are the splits; without them val is drawn. Without a test split, "test" is "val".

    Args:
        split: "train", "val" or "test".
        root: the folder with photos and annotation files, at any depth.
        tool: whose files they are.
        names: labels that are classes, in order, after the background; None takes all there are, by name.
        others: what a label is that `names` lacks: an "error", "background" (not painted) or "ignore".
        val_fraction, test_fraction: shares to draw where no folders split the photos.
        split_seed: of that draw.
        group: regular expression; photos in whose names its first group is the same stay in one split.

    Raises:
        UserError: there are no such files, one is not as the tool writes it, or its photo is missing.
    """

    channels = 3
    intensity = (0.0, 255.0)

    def __init__(
        self,
        split: str,
        root: str,
        tool: Literal["labelme", "labelstudio", "supervisely", "via"],
        names: list[str] | None = None,
        others: Literal["error", "background", "ignore"] = "error",
        val_fraction: ProperShare = 0.2,
        test_fraction: ProperShare | None = None,
        split_seed: NonNegativeInt = 0,
        group: str | None = None,
    ) -> None:
        folder = existing(root)
        self.layout, self._root = f"{tool}'s own files", folder
        everything = _READERS[tool](folder)
        if not everything:
            check_names_photos(folder)
            raise UserError(
                f"data.root: {folder} has no annotation files of {tool} ({contents(folder)} is there); give the folder of its "
                "export, with the photos in it"
            )
        by_split: dict[str, list[Photo]] = {
            s: _below(everything, folder / name) for s, name in split_folders(folder).items()
        }
        self.drawn = not (by_split.get("train") and by_split.get("val"))
        if not self.drawn:
            self.split = split if by_split.get(split) else "val"
            chosen = by_split[self.split]
        else:
            self.split = split if split != "test" or test_fraction else "val"
            everything.sort(key=lambda photo: self._named(photo))
            keys = [self._named(photo) for photo in everything]
            groups = splits.grouped(keys, group)
            shares = splits.draw(keys, val_fraction, test_fraction or 0.0, split_seed, groups, "photos")
            chosen = [everything[i] for i in shares[self.split]]
        labels = sorted({label for photo in everything for label in photo.labels} - {*_BACKGROUND, *_IGNORED})
        taken = [name for name in (labels if names is None else names) if name not in _BACKGROUND]
        check_names(folder, taken)
        self.label_set = LabelSet(("background", *taken), tuple((r, g, b) for r, g, b in voc_colors(len(taken) + 1)))
        ignored = self.label_set.ignore_index
        self._values = {name: k for k, name in enumerate(taken, 1)}
        self._values |= dict.fromkeys(_BACKGROUND, 0) | dict.fromkeys(_IGNORED, ignored)
        self._others = {"error": None, "background": -1, "ignore": ignored}[others]
        if others == "error" and (strange := next((name for name in labels if name not in self._values), None)):
            raise UserError(
                f"data.dataset.names: the files have the label {shown(strange, 60)!r} too; add it, or say what it and others "
                "are: data.dataset.others=background or ignore"
            )
        self._photos = chosen

    def __len__(self) -> int:
        return len(self._photos)

    def name(self, index: int) -> str:
        return self._named(self._photos[index])

    def files(self, index: int) -> tuple[Path, ...]:
        return self._photos[index].image, self._photos[index].source

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image uint8 [3, H, W] and mask uint8 [H, W]."""
        photo = self._photos[index]
        image = read_rgb(photo.image)
        height, width = image.shape[-2:]
        mask = np.zeros((height, width), np.uint8)
        try:
            for shape in photo.shapes(height, width):
                value = self._values.get(shape.label, self._others)
                if value is None:
                    raise ValueError(f"its label {shape.label[:60]!r} was not there before")
                if value >= 0:
                    paint(mask, shape, value)
        except _WRONG as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
            raise UserError(
                f"{photo.source}: the shapes of {photo.image.name} cannot be read ({shown(reason.splitlines()[0], 120)}); "
                "correct or remove them"
            ) from None
        return image, torch.from_numpy(mask)

    def _named(self, photo: Photo) -> str:
        return photo.image.relative_to(self._root).with_suffix("").as_posix()


def _below(photos: list[Photo], folder: Path) -> list[Photo]:
    return [photo for photo in photos if photo.source.is_relative_to(folder) or photo.image.is_relative_to(folder)]
