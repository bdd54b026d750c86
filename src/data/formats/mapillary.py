"""`Mapillary` reads Mapillary Vistas, street scenes of six continents (Neuhold et al. 2017), in the official layout."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from src.data.formats.paired import Paired, first_folder, in_folders
from src.data.labels import LabelSet
from src.data.layout.patterns import existing
from src.data.readers.images import NO_CLASS
from src.errors import UserError
from src.files.untrusted import read_json


class Mapillary(Paired):
    """`<root>/{training,validation}/images/*.jpg` with palette masks in `…/v1.2/labels/*.png` or `…/v2.0/labels/`; the first
    release, which has no folders of versions, in `…/labels/`.

    `config_v1.2.json` (of the first release `config.json`) or `config_v2.0.json` in the root says what the values mean; those
    that are not evaluated are ignored. The test split's labels are not public, so "test" is "val".

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.
        version: of the labels: `v1.2` evaluates 65 classes, `v2.0` 116.

    Raises:
        UserError: a folder or the config is missing, an image has no mask or a mask no image, or the config is damaged.
    """

    def __init__(self, split: str, root: str, version: Literal["v1.2", "v2.0"] = "v1.2") -> None:
        folder = existing(root)
        part = "training" if split == "train" else "validation"
        places = [f"{part}/{version}/labels", *([f"{part}/labels"] if version == "v1.2" else [])]
        masks = first_folder(folder, *places) or places[0]
        pairs = in_folders(folder, f"{part}/images", masks, f"unpack Mapillary Vistas {version} into {folder}")
        labels, lookup = _described(folder, version)
        super().__init__(folder, "train" if split == "train" else "val", labels, pairs, lookup)


def _described(root: Path, version: str) -> tuple[LabelSet, npt.NDArray[np.uint8]]:
    """The evaluated classes, and the class of each mask value."""
    places = [root / f"config_{version}.json", *([root / "config.json"] if version == "v1.2" else [])]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UserError(
            f"{places[0]}: is missing; it says what the masks' values mean: copy it out of Mapillary's archive into {root}"
        )
    try:
        listed = read_json(file, links=True)["labels"]
        chosen = [value for value, label in enumerate(listed) if label["evaluate"]]
        short, whole = ([str(listed[value][key]) for value in chosen] for key in ("readable", "name"))
        names = short if len(set(short)) == len(short) else whole
        content = {"names": names, "colors": [listed[value]["color"] for value in chosen], "ignore_index": 255}
        labels = LabelSet.from_dict(content)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"{file}: does not describe Vistas' labels ({type(error).__name__}: {error}); copy it out of the archive again"
        ) from None
    lookup = np.full(65536, NO_CLASS, np.uint8)
    lookup[: len(listed)] = labels.ignore_index
    lookup[255] = labels.ignore_index
    lookup[chosen] = range(len(chosen))
    return labels, lookup
