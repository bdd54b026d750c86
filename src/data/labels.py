"""Label sets: what the numbers in a mask mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from src.errors import UserError


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
            raise UserError(f"label set: class names repeat: {', '.join(self.names)}")
        if not 2 <= len(self.names) <= 255:
            raise UserError(f"label set: {len(self.names)} classes; 2 to 255 can be told apart in a mask of 8 bits")
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
        """The reverse of `to_dict`."""
        colors = tuple((int(r), int(g), int(b)) for r, g, b in values["colors"])
        return cls(tuple(map(str, values["names"])), colors, int(values["ignore_index"]))
