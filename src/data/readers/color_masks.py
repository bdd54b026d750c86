"""`ColorTable` reads masks whose colours are the classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.data.labels import LabelSet
from src.data.readers.images import open_picture, upright
from src.errors import UserError

_COLOR_MODES = ("RGB", "RGBA", "P", "L", "1")
_SHOWN = 12  # colours of classes that a message lists


class ColorTable:
    """The class of each colour.

    Args:
        labels: the classes and their colours.
        ignored: colours of pixels that neither train nor count.
        tolerance: how far each channel of a pixel may be from a colour's, of masks that JPEG has changed.

    Raises:
        UserError: a colour stands for two things, or two colours are nearer than the tolerance can tell apart.
    """

    def __init__(self, labels: LabelSet, ignored: Sequence[Sequence[int]] = (), tolerance: int = 0) -> None:
        self.labels = labels
        meaning: dict[int, str] = {}
        # Two bytes a colour, 0 for unknown ones: of the 32 MB only the pages that hold a known colour are ever touched.
        self._class_plus_one = np.zeros(1 << 24, np.uint16)
        entries = [(color, k, name) for k, (name, color) in enumerate(zip(labels.names, labels.colors, strict=True))]
        for color, value, name in [*entries, *((color, labels.ignore_index, "ignored pixels") for color in ignored)]:
            code = (int(color[0]) << 16) | (int(color[1]) << 8) | int(color[2])
            if code in meaning:
                raise UserError(
                    f"data.dataset.colors: [{','.join(map(str, color))}] stands for {meaning[code]} and for {name}; with masks "
                    "read by colour each needs its own"
                )
            meaning[code] = name
            self._class_plus_one[code] = value + 1
        self._tolerance = tolerance
        self._known = np.array([color for color, _, _ in entries] + [list(c) for c in ignored], np.int16)
        if tolerance:
            apart = np.abs(self._known[:, None] - self._known[None]).max(-1) + 1000 * np.eye(
                len(self._known), dtype=np.int16
            )
            if apart.min() <= 2 * tolerance:
                raise UserError(
                    f"data.dataset.tolerance: {tolerance} cannot tell colours apart of which two differ by {apart.min()}; take "
                    f"{(int(apart.min()) - 1) // 2}, or masks that are no JPEG"
                )

    def read(self, file: Path) -> npt.NDArray[np.uint8]:
        """A mask as class indices, uint8 [H, W]; a palette image is read by its palette's colours.

        Raises:
            UserError: it cannot be read, is no colour image, or has a colour that is neither a class's nor ignored.
        """
        with open_picture(file, "a mask") as image:
            if image.mode not in _COLOR_MODES:
                raise UserError(f"{file}: mask is {image.mode}, which has no RGB colours; convert it")
            palette = image.palette.colors if image.mode == "P" and image.palette else {}
            pixels = np.asarray(upright(image).convert("RGB"))
        found = self._class_plus_one[_codes(pixels)]
        if self._tolerance and not found.all():
            shades, where_shade = np.unique(pixels[found == 0], axis=0, return_inverse=True)
            found[found == 0] = self._nearest(shades)[where_shade.ravel()]
        if not found.all():
            where = np.argwhere(found == 0)
            row, column = where[0]
            color = ",".join(map(str, pixels[row, column].tolist()))
            known = ", ".join(f"{n} {c[0]},{c[1]},{c[2]}" for n, c in self._shown())
            raise UserError(
                f"{file}: colour {color} at {len(where)} pixels (first in row {row}, column {column}) is no class's; "
                f"the classes' are {known}{' …' if self.labels.num_classes > _SHOWN else ''}; "
                "correct data.dataset.colors, or list it in data.dataset.ignore_colors"
                + (" (or take data.dataset.mask_format=index: the file has a palette)" if palette else "")
            )
        mask: npt.NDArray[np.uint8] = (found - 1).astype(np.uint8)
        return mask

    def contradicted_by(self, image: Image.Image) -> str | None:
        """Why a palette image cannot be a mask by index: its palette shows a value in another class's colour."""
        if image.mode != "P":
            return None
        palette, names = image.getpalette("RGB") or [], self.labels.names
        for _, value in image.getcolors(256) or []:
            assert isinstance(value, int)
            shade = np.array(palette[3 * value : 3 * value + 3] or [0, 0, 0], np.uint8)
            by_color = int(self._class_plus_one[_codes(shade)]) - 1
            if 0 <= by_color < len(names) and by_color != value:
                own = f"class {value} is {names[value]}" if value < len(names) else f"no class is {value}"
                return f"its palette shows value {value} in the colour of {names[by_color]}, but {own}"
        return None

    def _nearest(self, shades: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
        """The class (plus one) of the nearest colour within the tolerance, or 0, of colours [N, 3]."""
        best = np.full(len(shades), self._tolerance + 1, np.int16)
        found = np.zeros(len(shades), np.uint16)
        for color in self._known:  # one colour at a time: a photo that is no mask has a hundred thousand shades
            away = np.abs(shades.astype(np.int16) - color).max(-1)
            nearer = away < best
            best[nearer] = away[nearer]
            found[nearer] = self._class_plus_one[_codes(color.astype(np.uint8))]
        return found

    def _shown(self) -> list[tuple[str, tuple[int, int, int]]]:
        return list(zip(self.labels.names, self.labels.colors, strict=True))[:_SHOWN]


def _codes(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.integer]:
    wide = pixels.astype(np.int32)
    codes: npt.NDArray[np.integer] = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return codes
