"""Maps label values on disk to classes."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.data.labels import LabelSet
from src.data.readers.images import NO_CLASS, index_lookup
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
        self.label_set = self.label_set.read_by(self._table)

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


def class_lookup(
    labels: LabelSet, values: Mapping[str, int | Sequence[int]] | None, ignore: Sequence[int], reduce_zero_label: bool
) -> npt.NDArray[np.uint8]:
    """The class of each 16-bit mask value, as `data=folder` takes the keys of those names.

    Raises:
        UserError: they contradict one another.
    """
    if reduce_zero_label:
        if values is not None:
            raise UserError(
                "data.dataset.reduce_zero_label: with data.dataset.values those say what 0 is; leave one out"
            )
        values = {name: k for k, name in enumerate(labels.names, 1)}
        ignore = [0, *(value for value in ignore if value)]
    if values is not None:
        return value_lookup(labels.names, values, ignore, labels.ignore_index)
    if (taken := next((value for value in ignore if value < labels.num_classes), None)) is not None:
        shifted = ", ".join(f"{name}: {k}" for k, name in enumerate(labels.names, 1))
        raise UserError(
            f"data.dataset.ignore: {taken} is the value of class {labels.names[taken]}, which would never be learnt; if the "
            "masks count from 1, say data.dataset.reduce_zero_label=true, else which value is what: data.dataset.values="
            f"{{{shifted}}}"
        )
    return index_lookup(labels.num_classes, list(ignore), labels.ignore_index)


def value_lookup(
    names: Sequence[str], values: Mapping[str, int | Sequence[int]], ignored: Sequence[int], ignore_index: int
) -> npt.NDArray[np.uint8]:
    """The class of each 16-bit mask value, uint8 [65536]: `values` are the classes', `ignored` (and 255, if no class has it)
    are `ignore_index`, others `NO_CLASS`.

    Raises:
        UserError: a class has no value, a value stands for two things, or is none of 16 bits.
    """
    lookup = np.full(_LARGEST + 1, NO_CLASS, np.uint8)
    owner: dict[int, str] = {}
    entries: list[tuple[int, str, int | Sequence[int]]] = []
    for number, name in enumerate(names):
        if name not in values:
            raise UserError(f"data.dataset.values: says nothing of class {name!r}; add {name}: VALUE")
        entries.append((number, name, values[name]))
    if unknown := next((name for name in values if name not in names), None):
        raise UserError(f"data.dataset.values: {unknown!r} is no class of data.dataset.names ({', '.join(names)})")
    for number, name, given in [*entries, (ignore_index, "ignored", list(ignored))]:
        for value in [given] if isinstance(given, int) else given:
            if not 0 <= value <= _LARGEST:
                raise UserError(f"data.dataset.values: {name!r} has the value {value}; values are 0 to {_LARGEST}")
            if value in owner:
                raise UserError(
                    f"data.dataset.values: the value {value} is {owner[value]!r} and {name!r}; give it to one"
                )
            owner[value] = name
            lookup[value] = number
    if lookup[255] == NO_CLASS:
        lookup[255] = ignore_index
    return lookup


def tolerant(lookup: npt.NDArray[np.uint8], tolerance: int) -> npt.NDArray[np.uint8]:
    """The same table, in which a value that is nothing is what the nearest one is that lies no more than `tolerance` away.

    Raises:
        UserError: two values lie so near that one between them could be either.
    """
    known = np.flatnonzero(lookup != NO_CLASS)
    gaps = np.diff(known)
    meant = lookup[known]
    close = (gaps <= 2 * tolerance) & (meant[1:] != meant[:-1])
    if close.any():
        at = int(np.flatnonzero(close)[0])
        raise UserError(
            f"data.dataset.tolerance: the values {known[at]} and {known[at + 1]} lie {gaps[at]} apart, so that {tolerance} "
            f"away from one can be the other; take {(int(gaps[at]) - 1) // 2}, or masks that are no JPEG"
        )
    every = np.arange(len(lookup))
    right = np.clip(np.searchsorted(known, every), 0, len(known) - 1)
    left = np.clip(right - 1, 0, None)
    nearest = np.where(np.abs(known[left] - every) <= np.abs(known[right] - every), known[left], known[right])
    snapped: npt.NDArray[np.uint8] = np.where(np.abs(nearest - every) <= tolerance, lookup[nearest], NO_CLASS).astype(
        np.uint8
    )
    return snapped


def _colors(names: Sequence[str]) -> list[list[int]]:
    colored = [name for name in names if name != _BACKGROUND]
    hues = {name: colorsys.hsv_to_rgb(k / len(colored), 0.75, 0.9) for k, name in enumerate(colored)}
    return [[round(part * 255) for part in hues.get(name, (0.25, 0.25, 0.25))] for name in names]
