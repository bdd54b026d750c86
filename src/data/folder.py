"""Images and index masks in parallel folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image, ImageOps
from pydantic import Field
from torch import Tensor

from src.data.labels import LabelSet
from src.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_NO_CLASS = 254  # stands for a mask value that is neither a class nor ignored


class Folder:
    """One split of a data set whose image `<images>/<name>.*` has its mask in `<masks>/<name><mask_suffix>.png`.

    Args:
        split: "train", "val" or "test"; without a test folder, "test" reads "val".
        root: the data set's folder.
        names: class names; class k is mask value k.
        colors: RGB of each class; None takes evenly spread hues.
        images, masks: sub-folders; `{split}` stands for the split's name.
        mask_suffix: what a mask's name has behind the image's.
        ignore: mask values that neither train nor count.

    Raises:
        UserError: a folder is missing or empty, an image has no mask or a mask no image, a file cannot be read, sizes
            differ, a mask has a value that is neither a class nor ignored.
    """

    channels = 3
    intensity = (0.0, 255.0)

    def __init__(
        self,
        split: str,
        root: str,
        names: list[str],
        colors: list[list[int]] | None = None,
        images: str = "images/{split}",
        masks: str = "masks/{split}",
        mask_suffix: str = "",
        ignore: list[Annotated[int, Field(ge=0, le=65535)]] | None = None,
    ) -> None:
        chosen = colors or [[*_hue(k / len(names))] for k in range(len(names))]
        self.label_set = LabelSet(tuple(names), tuple((int(r), int(g), int(b)) for r, g, b in chosen))
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise UserError(f"data.root: there is no folder {folder}; give the data set's folder as data.root=…")
        if split == "test" and not (folder / images.format(split="test")).is_dir():
            split = "val"
        self.split = split
        image_files = _listed(folder / images.format(split=split), IMAGE_SUFFIXES, "")
        mask_files = _listed(folder / masks.format(split=split), (".png",), mask_suffix)
        for name, file in image_files.items():
            if name not in mask_files:
                raise UserError(
                    f"{file}: image without mask; {folder / masks.format(split=split)}/{name}{mask_suffix}.png is missing"
                )
        for name, file in mask_files.items():
            if name not in image_files:
                raise UserError(
                    f"{file}: mask without image; add {folder / images.format(split=split)}/{name}.jpg or remove it"
                )
        # One array of fixed-width strings each: nothing per file that worker processes would copy on reference.
        self._names = np.array(sorted(image_files))
        self._images = np.array([str(image_files[n]) for n in self._names])
        self._masks = np.array([str(mask_files[n]) for n in self._names])
        self._lookup = np.full(65536, _NO_CLASS, np.uint8)
        self._lookup[: len(names)] = range(len(names))
        self._lookup[[255, *(ignore or [])]] = self.label_set.ignore_index

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return str(self._names[index])

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image uint8 [3, H, W] and mask uint8 [H, W]."""
        image = read_rgb(Path(str(self._images[index])))
        file = Path(str(self._masks[index]))
        values = _read_index_mask(file)
        if values.shape != tuple(image.shape[-2:]):
            raise UserError(
                f"{file}: mask is {values.shape[1]}x{values.shape[0]} but its image {self._images[index]} is "
                f"{image.shape[2]}x{image.shape[1]}; width and height must be equal"
            )
        mask = self._lookup[values]
        if (wrong := mask == _NO_CLASS).any():
            classes = self.label_set.num_classes
            raise UserError(
                f"{file}: label {values[wrong][0]} is out of range; {classes} classes are 0 to {classes - 1}, and "
                f"values to ignore are listed in data.dataset.ignore"
            )
        return image, torch.from_numpy(mask)


def read_rgb(file: Path) -> Tensor:
    """Any image file as uint8 [3, H, W], turned upright as its EXIF tag says.

    Raises:
        UserError: missing, truncated or no image.
    """
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        return torch.from_numpy(np.asarray(upright).copy()).permute(2, 0, 1).contiguous()
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{file}: cannot be read as an image ({_first_line(error)}); replace or remove it") from None


def _read_index_mask(file: Path) -> np.ndarray[tuple[int, int], np.dtype[np.generic]]:
    try:
        with Image.open(file) as image:
            if image.mode not in ("L", "P", "1", "I", "I;16"):
                raise UserError(f"{file}: mask is {image.mode}, not an index image (one value a pixel); convert it")
            return np.asarray(image.convert("L") if image.mode == "1" else image)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{file}: cannot be read as a mask ({_first_line(error)}); replace or remove it") from None


def _listed(folder: Path, suffixes: tuple[str, ...], tail: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"data.root: {folder} is missing; check data.root and the data set's layout")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in suffixes and file.stem.endswith(tail) and not file.name.startswith("."):
            name = file.stem.removesuffix(tail) if tail else file.stem
            if name in found:
                raise UserError(f"{file}: has the same name as {found[name].name}; keep one of them")
            found[name] = file
    if not found:
        raise UserError(f"{folder}: no {' or '.join(suffixes)} files; the split is empty")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _hue(position: float) -> tuple[int, int, int]:
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(position, 0.75, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)
