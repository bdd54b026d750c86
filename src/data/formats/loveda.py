"""`LoveDA` reads towns and country from above at 0.3 m, 7 classes (Wang et al. 2021), in the official layout."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from src.data.formats.paired import Paired, in_folders
from src.data.labels import LabelSet
from src.data.layout.pairs import Pair
from src.data.layout.patterns import existing
from src.data.readers.label_values import class_lookup

_CLASSES: dict[str, tuple[int, int, int]] = {
    "background": (255, 255, 255),
    "building": (255, 0, 0),
    "road": (255, 255, 0),
    "water": (0, 0, 255),
    "barren": (159, 129, 183),
    "forest": (0, 255, 0),
    "agriculture": (255, 195, 128),
}


class LoveDA(Paired):
    """`<root>/{Train,Val}/{Urban,Rural}/images_png/*.png` with masks of the same names in `masks_png/`.

    Class k is the value k + 1; the value 0, no data, is ignored. The test split's labels are not public, so "test" is "val".
    Names are urban/N and rural/N.

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.
        domains: which of the two to read, in every split.

    Raises:
        UserError: a folder is missing or empty, an image has no mask or a mask no image.
    """

    def __init__(
        self,
        split: str,
        root: str,
        domains: Annotated[list[Literal["urban", "rural"]], Field(min_length=1)] | None = None,
    ) -> None:
        folder = existing(root)
        part = "Train" if split == "train" else "Val"
        pairs: list[Pair] = []
        for domain in ("urban", "rural"):
            if domain in (domains or ("urban", "rural")):
                place = f"{part}/{domain.title()}"
                mend = f"unpack LoveDA's {part}.zip into {folder}"
                pairs += in_folders(folder, f"{place}/images_png", f"{place}/masks_png", mend, before=f"{domain}/")
        labels = LabelSet(tuple(_CLASSES), tuple(_CLASSES.values()))
        lookup = class_lookup(labels, None, [], reduce_zero_label=True)
        super().__init__(folder, part.lower(), labels, pairs, lookup)
