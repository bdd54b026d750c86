"""Cityscapes' layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.data.formats.cityscapes import Cityscapes
from src.errors import UserError
from tests.data.layouts import cityscapes


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_ids_become_training_classes(tmp_path: Path, kind: str) -> None:
    val = Cityscapes("val", str(cityscapes(tmp_path, kind=kind)))
    assert val.read(0)[1][:4, 0].tolist() == [0, 13, 255, 18]  # road, car, void, bicycle
    assert val.label_set.names[:2] == ("road", "sidewalk") and val.label_set.num_classes == 19
    assert val.name(2) == "aachen_000002_000019"
    assert Cityscapes("test", str(tmp_path)).split == "val"


def test_coarse_annotations_are_for_training_only(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    sizes = {a: len(Cityscapes("train", str(tmp_path), a)) for a in ("fine", "coarse", "fine+coarse")}
    assert sizes == {"fine": 3, "coarse": 6, "fine+coarse": 6}
    for split in ("val", "test"):
        source = Cityscapes(split, str(tmp_path), "coarse")
        assert len(source) == 3
        assert "gtFine" in str(source._masks.path(0))


@pytest.mark.parametrize(
    ("missing", "split", "said"),
    [
        ("gtFine/val/aachen/aachen_000001_000019_gtFine_labelIds.png", "val", "image without mask"),
        ("leftImg8bit/val/aachen/aachen_000001_000019_leftImg8bit.png", "val", "mask without image"),
        ("leftImg8bit/train_extra", "train", "is missing; unpack Cityscapes' leftImg8bit archive"),
        ("gtCoarse", "train", "is missing; unpack Cityscapes' gtCoarse archive"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, missing: str, split: str, said: str) -> None:
    cityscapes(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError) as caught:
        Cityscapes(split, str(tmp_path), "fine+coarse")
    assert str(tmp_path / missing) in str(caught.value)
    assert said in str(caught.value)
