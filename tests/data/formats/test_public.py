"""Public data sets in their official layouts, in miniature: classes, values, splits, and what is said of what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.data.dataset import Source
from src.data.formats.ade20k import ADE20K
from src.data.formats.coco import Coco
from src.data.formats.cocostuff import CocoStuff
from src.data.formats.loveda import LoveDA
from src.errors import UserError
from tests.data.layouts import index_png, photo, rows


def names(source: Source) -> list[str]:
    return [source.name(i) for i in range(len(source))]


def column(source: Source, index: int = 0, count: int = 4) -> list[int]:
    """The classes of a mask's first rows."""
    found: list[int] = source.read(index)[1][:count, 0].tolist()
    return found


def ade20k(root: Path, count: int = 3) -> Path:
    for part, short in (("training", "train"), ("validation", "val")):
        for i in range(1, count + 1):
            name = f"ADE_{short}_{i:08}"
            photo(root / f"ADEChallengeData2016/images/{part}/{name}.jpg", i)
            index_png(root / f"ADEChallengeData2016/annotations/{part}/{name}.png", rows(0, 1, 150, 20))
    return root


@pytest.mark.parametrize("below", ["", "ADEChallengeData2016"])
def test_ade20k_counts_from_one(tmp_path: Path, below: str) -> None:
    ade20k(tmp_path)
    val = ADE20K("test", str(tmp_path / below))
    assert (val.split, val.label_set.num_classes, names(val)[0]) == ("val", 150, "ADE_val_00000001")
    assert column(val) == [255, 0, 149, 19]
    assert [val.label_set.names[k] for k in (0, 7, 19, 131, 149)] == ["wall", "bed", "chair", "blanket", "flag"]
    assert val.label_set.colors[:2] == ((120, 120, 120), (180, 120, 120))
    index_png(tmp_path / "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png", rows(151))
    with pytest.raises(UserError, match=r"ADE_val_00000001\.png: label 151 is out of range; 150 classes"):
        val.read(0)
    (tmp_path / "ADEChallengeData2016/images/training/ADE_train_00000002.jpg").unlink()
    with pytest.raises(UserError, match=r"annotations/training/ADE_train_00000002\.png: mask without image"):
        ADE20K("train", str(tmp_path))
    with pytest.raises(UserError, match=r"images/training is missing; unpack ADEChallengeData2016\.zip"):
        ADE20K("train", str(tmp_path / "ADEChallengeData2016/images"))


def cocostuff(root: Path, masks: str = "stuffthingmaps", photos: str = "images/", count: int = 3) -> Path:
    for part in ("train2017", "val2017"):
        for i in range(count):
            photo(root / f"{photos}{part}/{i:012}.jpg", i)
            index_png(root / f"{masks}/{part}/{i:012}.png", rows(0, 12, 181, 255))
    return root


@pytest.mark.parametrize(
    ("masks", "photos"), [("stuffthingmaps", "images/"), ("annotations", ""), ("annotations", "images/")]
)
def test_cocostuff_leaves_unused_ids_out(tmp_path: Path, masks: str, photos: str) -> None:
    cocostuff(tmp_path, masks, photos)
    train = CocoStuff("train", str(tmp_path))
    assert (train.label_set.num_classes, column(train)) == (171, [0, 11, 170, 255])
    index_png(tmp_path / masks / "val2017/000000000000.png", rows(11))  # street sign: named, never labelled
    with pytest.raises(UserError, match="label 11 is out of range"):
        CocoStuff("val", str(tmp_path)).read(0)


def test_cocostuff_of_mmsegmentation(tmp_path: Path) -> None:
    cocostuff(tmp_path, "annotations")
    for i in range(3):
        index_png(tmp_path / f"annotations/val2017/{i:012}_labelTrainIds.png", rows(0, 11, 170, 255))
    val = CocoStuff("val", str(tmp_path))
    assert names(val) == [f"{i:012}" for i in range(3)]
    assert column(val) == column(CocoStuff("train", str(tmp_path))) == [0, 11, 170, 255]
    assert [file.name for file in val.files(0)] == ["000000000000.jpg", "000000000000_labelTrainIds.png"]


def test_cocostuff_is_cocos_stuff(tmp_path: Path) -> None:
    cocostuff(tmp_path)
    coco, stuff = Coco("val", str(tmp_path), "stuff"), CocoStuff("val", str(tmp_path))
    assert coco.label_set == stuff.label_set and column(coco) == column(stuff)
    (tmp_path / "stuffthingmaps").rename(tmp_path / "masks")
    with pytest.raises(UserError, match=r"stuffthingmaps/val2017 is missing; unpack stuffthingmaps_trainval2017\.zip"):
        CocoStuff("val", str(tmp_path))


def loveda(root: Path, count: int = 2) -> Path:
    for part in ("Train", "Val"):
        for domain in ("Urban", "Rural"):
            for i in range(count):
                photo(root / f"{part}/{domain}/images_png/{i}.png", i)
                index_png(root / f"{part}/{domain}/masks_png/{i}.png", rows(0, 1, 7, 3))
    return root


def test_loveda_tells_domains_apart(tmp_path: Path) -> None:
    loveda(tmp_path)
    val = LoveDA("test", str(tmp_path))
    assert (val.split, names(val)) == ("val", ["urban/0", "urban/1", "rural/0", "rural/1"])
    assert column(val) == [255, 0, 6, 2]
    assert names(LoveDA("train", str(tmp_path), ["rural"])) == ["rural/0", "rural/1"]
    (tmp_path / "Train/Rural").rename(tmp_path / "Rural")
    with pytest.raises(UserError, match=r"Train/Rural/images_png is missing; unpack LoveDA's Train\.zip into"):
        LoveDA("train", str(tmp_path))
