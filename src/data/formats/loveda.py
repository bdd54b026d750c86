"""`LoveDA` reads towns and country from above at 0.3 m, 7 classes (Wang et al. 2021), in the official layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from src.data.fetch import Archive, fetch
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

_RECORD = "https://zenodo.org/records/5706578/files"
ARCHIVES = {
    "Train": Archive(f"{_RECORD}/Train.zip", "de2b196043ed9b4af1690b3f9a7d558f", "Train", "Train"),
    "Val": Archive(f"{_RECORD}/Val.zip", "84cae2577468ff0b5386758bb386d31d", "Val", "Val"),
}


class LoveDA(Paired):
    """`<root>/{Train,Val}/{Urban,Rural}/images_png/*.png` with masks of the same names in `masks_png/`.

    Class k is the value k + 1; the value 0, no data, is ignored. The test split's labels are not public, so "test" is "val".
    Names are urban/N and rural/N.

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.
        domains: which of the two to read, in every split.
        download: fetch the split's archive into `root` where it is missing.

    Raises:
        UserError: a folder is missing or empty, an image has no mask or a mask no image, or the download failed.
    """

    def __init__(
        self,
        split: str,
        root: str,
        domains: Annotated[list[Literal["urban", "rural"]], Field(min_length=1)] | None = None,
        download: bool = False,
    ) -> None:
        part = "Train" if split == "train" else "Val"
        if download:
            fetch(Path(root).expanduser(), [ARCHIVES[part]])
        folder = existing(root)
        pairs: list[Pair] = []
        for domain in ("urban", "rural"):
            if domain in (domains or ("urban", "rural")):
                place = f"{part}/{domain.title()}"
                mend = f"unpack LoveDA's {part}.zip into {folder}, or fetch it with data.download=true"
                pairs += in_folders(folder, f"{place}/images_png", f"{place}/masks_png", mend, before=f"{domain}/")
        labels = LabelSet(tuple(_CLASSES), tuple(_CLASSES.values()))
        lookup = class_lookup(labels, None, [], reduce_zero_label=True)
        super().__init__(folder, part.lower(), labels, pairs, lookup)
