"""`LabelSet` says what the numbers in a mask mean."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from src.errors import UserError
from src.files.untrusted import shown

_LONGEST_NAME = 200  # characters
_LARGEST_ID = 65535


@dataclass(frozen=True)
class LabelSet:
    """Class names and colours of a data set, and the mask value that is ignored.

    It belongs to the data set, travels in the checkpoint, and is all that prediction, pictures and tables need.

    Args:
        names: one per class; class k is mask value k.
        colors: RGB, 0 to 255, one per class.
        ignore_index: the mask value of pixels that neither train nor count.
        ids: what the data set's own files have for each class; None is 0, 1, 2 …, and an empty tuple that it is not known,
            as in checkpoints that do not say it.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_index: int = 255
    ids: tuple[int, ...] | None = field(default=None, compare=False)

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
        if self.ids and not len(self.names) == len(self.ids) == len(set(self.ids)):
            raise UserError(f"label set: {len(self.names)} classes but {len(set(self.ids))} ids; give one id per class")

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def palette(self) -> npt.NDArray[np.uint8]:
        """Colours by mask value, uint8 [256, 3]; values that are no class are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: self.num_classes] = self.colors
        return palette

    def read_by(self, lookup: npt.NDArray[np.uint8]) -> LabelSet:
        """The same label set with ids: of each class the least value that `lookup`, classes by value, takes for it."""
        values = [np.flatnonzero(lookup == k) for k in range(self.num_classes)]
        return replace(self, ids=tuple(int(found[0]) for found in values) if all(map(len, values)) else ())

    def own_ids(self) -> OwnIds:
        """From class numbers to what the data set's own files have.

        Raises:
            UserError: it is not known.
        """
        if self.ids == ():
            raise UserError(
                "ids: the checkpoint does not say what the data set's own files have for each class; take ids=train, or "
                "train anew"
            )
        ids = range(self.num_classes) if self.ids is None else self.ids
        largest = 255 if max(ids) <= 255 else _LARGEST_ID
        void = next(value for value in range(largest, -1, -1) if value not in ids)
        table: npt.NDArray[Any] = np.full(256, void, np.min_scalar_type(largest))
        table[: self.num_classes] = ids
        return OwnIds(table, void)

    def to_dict(self) -> dict[str, object]:
        """Plain containers, for a checkpoint."""
        return {
            "names": list(self.names), "colors": [list(c) for c in self.colors], "ignore_index": self.ignore_index,
            "ids": list(range(self.num_classes)) if self.ids is None else list(self.ids),
        }  # fmt: skip

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
        ids = values.get("ids", [])
        if wrong := [value for value in ids if type(value) is not int or not 0 <= value <= _LARGEST_ID]:
            raise UserError(f"label set: {shown(repr(wrong[0]), 60)} is no id; they are 0 to {_LARGEST_ID}")
        return cls(tuple(names), tuple(colors), ignore_index, tuple(ids))


@dataclass(frozen=True)
class OwnIds:
    """What a data set's own files have for each class.

    Args:
        table: by class number, uint8 or uint16 [256].
        void: of what is no class; no class has it.
    """

    table: npt.NDArray[np.unsignedinteger]
    void: int

    def of(self, mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.unsignedinteger]:
        """A mask of class numbers in these ids, in the same shape."""
        return self.table[mask]

    def classes(self, mask: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """The reverse of `of`; what is no class becomes 255."""
        back = np.full(int(self.table.max()) + 1, 255, np.uint8)
        numbers = np.flatnonzero(self.table != self.void)
        back[self.table[numbers]] = numbers
        classes: npt.NDArray[np.uint8] = back[mask]
        return classes

    def by_value(self, palette: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Colours by class number, uint8 [256, 3], as colours by these ids; of ids above 255 there are none."""
        colors = np.zeros((256, 3), np.uint8)
        numbers = np.flatnonzero((self.table != self.void) & (self.table < 256))
        colors[self.table[numbers]] = palette[numbers]
        return colors


def spread_colors(count: int) -> list[list[int]]:
    """So many RGB colours, their hues evenly spread."""
    shades = (colorsys.hsv_to_rgb(k / count, 0.75, 0.9) for k in range(count))
    return [[round(red * 255), round(green * 255), round(blue * 255)] for red, green, blue in shades]


def voc_colors(count: int) -> list[list[int]]:
    """The first so many of Pascal VOC's colours, black first; up to 256 differ, the number's bits dealt out to R, G, B."""
    return [[sum(((k >> (3 * j + c)) & 1) << (7 - j) for j in range(8)) for c in range(3)] for k in range(count)]
