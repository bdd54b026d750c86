"""`ACDC` reads street scenes in fog, at night, in rain and snow with Cityscapes' classes (Sakaridis et al. 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from src.data.formats.cityscapes import LABELS, by_official_id, by_train_id
from src.data.formats.paired import Paired, in_folders
from src.data.layout import patterns
from src.data.layout.pairs import Pair
from src.data.layout.patterns import existing

_CONDITIONS = ("fog", "night", "rain", "snow")


class ACDC(Paired):
    """`<root>/rgb_anon/<condition>/{train,val}/<sequence>/*_rgb_anon.png` with
    `<root>/gt/<condition>/{train,val}/<sequence>/*_gt_labelTrainIds.png`.

    Where there are no `*_gt_labelTrainIds.png`, `*_gt_labelIds.png` are read, whose values are Cityscapes' official ids.
    Ids that are no training class are ignored. The test split's labels are not public, so "test" is "val".

    Args:
        split: "train", "val" or "test".
        root: the data set's folder.
        conditions: which to read, in every split.

    Raises:
        UserError: a folder is missing or empty, an image has no mask or a mask no image.
    """

    def __init__(
        self,
        split: str,
        root: str,
        conditions: Annotated[list[Literal["fog", "night", "rain", "snow"]], Field(min_length=1)] | None = None,
    ) -> None:
        folder = existing(root)
        read = "train" if split == "train" else "val"
        wanted = [condition for condition in _CONDITIONS if condition in (conditions or _CONDITIONS)]
        kind = _kind(folder, f"gt/{wanted[0]}/{read}")
        mend = f"unpack rgb_anon_trainvaltest.zip and gt_trainval.zip into {folder}"
        pairs: list[Pair] = []
        for condition in wanted:
            images, masks = f"rgb_anon/{condition}/{read}", f"gt/{condition}/{read}"
            pairs += in_folders(folder, images, masks, mend, "_rgb_anon", kind, f"{condition}/")
        super().__init__(folder, read, LABELS, pairs, by_official_id() if kind == "_gt_labelIds" else by_train_id())


def _kind(root: Path, place: str) -> str:
    """How the masks that are read end."""
    official = not patterns.exists(root, f"{place}/*/*_gt_labelTrainIds.png")
    return "_gt_labelIds" if official and patterns.exists(root, f"{place}/*/*_gt_labelIds.png") else "_gt_labelTrainIds"
