"""`LabelSet` says what the numbers in a mask mean."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from src.errors import UserError
from src.files.untrusted import shown

_LONGEST_NAME = 200  # characters


@dataclass(frozen=True)
class LabelSet:
    """Class names and colours of a data set, and the mask value that is ignored.

    It belongs to the data set, travels in the checkpoint, and is all that prediction, pictures and tables need.

    Args:
        names: one per class; class k is mask value k.
        colors: RGB, 0 to 255, one per class.
        ignore_index: the mask value of pixels that neither train nor count.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_index: int = 255

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colors):
            raise UserError(
                f"label set: {len(self.names)} names but {len(self.colors)} colors; give one color per class"
            )
        if len(set(self.names)) != len(self.names):
            raise UserError(f"label set: class names repeat: {shown(', '.join(self.names), 400)}")
        if not 2 <= len(self.names) <= 254:  # of 256 values one is ignored, and one is kept for values of no class
            raise UserError(f"label set: {len(self.names)} classes; 2 to 254 can be told apart in a mask of 8 bits")
        if 0 <= self.ignore_index < len(self.names):
            raise UserError(
                f"label set: ignore_index {self.ignore_index} is the number of class {self.names[self.ignore_index]!r}"
            )

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def palette(self) -> npt.NDArray[np.uint8]:
        """Colours by mask value, uint8 [256, 3]; values that are no class are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: self.num_classes] = self.colors
        return palette

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for a checkpoint."""
        return {"names": list(self.names), "colors": [list(c) for c in self.colors], "ignore_index": self.ignore_index}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LabelSet:
        """The reverse of `to_dict`, of values that may be anyone's.

        Raises:
            UserError: they make no label set, or one whose names a terminal or a table could not show.
            KeyError, TypeError, ValueError: they are no values of one.
        """
        names, ignore_index = values["names"], values["ignore_index"]
        for name in names:
            if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
                raise UserError(
                    f"label set: {shown(repr(name), 60)} is no name of a class; names are printable text of up to "
                    f"{_LONGEST_NAME} characters"
                )
        colors = []
        for red, green, blue in values["colors"]:
            for value in (red, green, blue):
                if type(value) is not int or not 0 <= value <= 255:
                    raise UserError(f"label set: {shown(repr(value), 60)} is no part of a color; they are 0 to 255")
            colors.append((red, green, blue))
        if type(ignore_index) is not int or not -(2**31) <= ignore_index < 2**31:
            raise UserError(f"label set: ignore_index {shown(repr(ignore_index), 60)} is no mask value")
        return cls(tuple(names), tuple(colors), ignore_index)


def spread_colors(count: int) -> list[list[int]]:
    """So many RGB colours, their hues evenly spread."""
    shades = (colorsys.hsv_to_rgb(k / count, 0.75, 0.9) for k in range(count))
    return [[round(red * 255), round(green * 255), round(blue * 255)] for red, green, blue in shades]


def voc_colors(count: int) -> list[list[int]]:
    """The first so many of Pascal VOC's colours, black first; up to 256 differ, the number's bits dealt out to R, G, B."""
    return [[sum(((k >> (3 * j + c)) & 1) << (7 - j) for j in range(8)) for c in range(3)] for k in range(count)]
