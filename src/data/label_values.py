"""Which label values on disk are which class."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.data.labels import LabelSet
from src.errors import UserError

_LARGEST = 65535
_BACKGROUND = "background"


class LabelValues:
    """A table from label values to classes.

    Args:
        labels: each class's value or values, in the order of the classes.
        colors: RGB of each class; None takes evenly spread hues, dark gray for a class named background.
        others: what values are that `labels` does not list: "background", the class of that name (put before the others
            where `labels` has none), or "ignore".
        ignore: values that neither train nor count.

    Raises:
        UserError: a value stands for two things, or there are not 2 to 255 classes.
    """

    def __init__(
        self,
        labels: Mapping[str, int | Sequence[int]],
        colors: Sequence[Sequence[int]] | None,
        others: str,
        ignore: Sequence[int] | None,
    ) -> None:
        classes = {name: [given] if isinstance(given, int) else list(given) for name, given in labels.items()}
        if others == "background" and _BACKGROUND not in classes:
            classes = {_BACKGROUND: [], **classes}
        names = tuple(classes)
        chosen = colors or _colors(names)
        self.label_set = LabelSet(names, tuple((int(r), int(g), int(b)) for r, g, b in chosen))
        ignored = self.label_set.ignore_index
        rest = names.index(_BACKGROUND) if others == "background" else ignored
        self._table = np.full(_LARGEST + 1, rest, np.uint8)
        owner: dict[int, str] = {}
        for number, (name, values) in [*enumerate(classes.items()), (ignored, ("ignore", list(ignore or [])))]:
            for value in values:
                if value in owner:
                    raise UserError(
                        f"data.dataset.labels: the value {value} is {owner[value]!r} and {name!r}; give it to one"
                    )
                if not 0 <= value <= _LARGEST:
                    raise UserError(f"data.dataset.labels: {name!r} has the value {value}; values are 0 to {_LARGEST}")
                owner[value] = name
                self._table[value] = number
        self.listed = frozenset(owner)

    def mask(self, values: npt.NDArray[np.generic], file: Path) -> npt.NDArray[np.uint8]:
        """Classes uint8 of label values of any dtype, in the same shape.

        Raises:
            UserError: a value is no whole number from 0 to 65535; names `file`.
        """
        with np.errstate(invalid="ignore"):
            whole = values.astype(np.int64)
        wrong = (whole < 0) | (whole > _LARGEST) | (whole != values)
        if wrong.any():
            raise UserError(
                f"{file}: label value {values[wrong][0]} is no class index (a whole number from 0 to {_LARGEST}); is it "
                f"an image? Check data.dataset.masks"
            )
        mask: npt.NDArray[np.uint8] = self._table[whole]
        return mask


def _colors(names: Sequence[str]) -> list[list[int]]:
    colored = [name for name in names if name != _BACKGROUND]
    hues = {name: colorsys.hsv_to_rgb(k / len(colored), 0.75, 0.9) for k, name in enumerate(colored)}
    return [[round(part * 255) for part in hues.get(name, (0.25, 0.25, 0.25))] for name in names]
