"""Public data sets in their official layouts, in miniature: classes, values, splits, and what is said of what is missing."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from src.data.fetch import Archive
from src.data.formats import cityscapes
from src.data.formats.acdc import ACDC
from src.data.formats.ade20k import ADE20K
from src.data.formats.bdd100k import BDD100K
from src.data.formats.coco import Coco
from src.data.formats.cocostuff import CocoStuff
from src.data.formats.gta5 import GTA5
from src.data.formats.isaid import ISAID
from src.data.formats.kitti import Kitti
from src.data.formats.loveda import ARCHIVES, LoveDA
from src.data.formats.mapillary import Mapillary
from src.data.formats.pascal_context import PascalContext
from src.data.labels import voc_colors
from src.data.sources import Source
from src.errors import UserError
from tests.data.layouts import index_png, photo, rows
from tests.data.test_fetch import Server


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


def test_loveda_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.make_archive(str(tmp_path / "Train"), "zip", loveda(tmp_path / "packed"), "Train")
    content = (tmp_path / "Train.zip").read_bytes()
    server = Server(content, at_once=len(content))
    monkeypatch.setitem(ARCHIVES, "Train", Archive(server.url, hashlib.md5(content).hexdigest(), "Train", "Train"))
    assert len(LoveDA("train", str(tmp_path / "root"), download=True)) == 4
    assert not (tmp_path / "root/Val").exists()
    server.http.shutdown()


def mapillary(root: Path, masks: str = "v1.2/labels", config: str = "config_v1.2.json", count: int = 2) -> Path:
    kinds = [("Bird", True), ("Road", True), ("Car Mount", False), ("Sky", True), ("Unlabeled", False)]
    listed = [
        {
            "name": f"kind--{name.lower()}",
            "readable": name,
            "evaluate": used,
            "color": [k, 2 * k, 3 * k],
            "instances": False,
        }
        for k, (name, used) in enumerate(kinds)
    ]
    for part in ("training", "validation"):
        for i in range(count):
            photo(root / f"{part}/images/{i}abc.jpg", i)
            index_png(root / f"{part}/{masks}/{i}abc.png", rows(1, 2, 3, 4), voc_colors(256))
    (root / config).write_text(json.dumps({"labels": listed, "version": "1.2", "mapping": "public"}))
    return root


@pytest.mark.parametrize(
    ("masks", "config", "version"),
    [
        ("v1.2/labels", "config_v1.2.json", "v1.2"),
        ("labels", "config.json", "v1.2"),
        ("v2.0/labels", "config_v2.0.json", "v2.0"),
    ],
)
def test_mapillarys_config_says_what_counts(
    tmp_path: Path, masks: str, config: str, version: Literal["v1.2", "v2.0"]
) -> None:
    mapillary(tmp_path, masks, config)
    val = Mapillary("val", str(tmp_path), version)
    assert val.label_set.names == ("Bird", "Road", "Sky") and val.label_set.colors[2] == (3, 6, 9)
    assert column(val) == [1, 255, 2, 255]
    index_png(tmp_path / "validation" / masks / "0abc.png", rows(5))
    with pytest.raises(UserError, match="label 5 is out of range"):
        val.read(0)
    text = (tmp_path / config).read_text()
    for damaged in ("{}", '{"labels": [{"evaluate": true}]}', text.replace('"Bird"', '"\\u001b"'), "[" * 9):
        (tmp_path / config).write_text(damaged)
        with pytest.raises(UserError, match=r"label set: |config.*(does not describe Vistas' labels|no JSON)"):
            Mapillary("val", str(tmp_path), version)
    (tmp_path / config).unlink()
    with pytest.raises(UserError, match=rf"config_{version}\.json: is missing; it says what the masks' values mean"):
        Mapillary("val", str(tmp_path), version)


def pascal_context(root: Path, count: int = 2) -> Path:
    base = root / "VOCdevkit/VOC2010"
    (base / "ImageSets/SegmentationContext").mkdir(parents=True)
    for split in ("train", "val"):
        listed = [f"2008_{split}{i:06}" for i in range(count)]
        for i, name in enumerate(listed):
            photo(base / f"JPEGImages/{name}.jpg", i)
            index_png(base / f"SegmentationClassContext/{name}.png", rows(0, 1, 55, 59))
        (base / f"ImageSets/SegmentationContext/{split}.txt").write_text("\n".join(listed) + "\n")
    return root


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2010"])
def test_pascal_context_with_and_without_background(tmp_path: Path, below: str) -> None:
    pascal_context(tmp_path)
    val, things = PascalContext("test", str(tmp_path / below)), PascalContext("val", str(tmp_path / below), 59)
    assert (val.split, val.label_set.num_classes, column(val)) == ("val", 60, [0, 1, 55, 59])
    assert (things.label_set.num_classes, column(things)) == (59, [255, 0, 54, 58])
    assert val.label_set.names[55] == things.label_set.names[54] == "tvmonitor"
    assert val.label_set.colors[1:] == things.label_set.colors
    (tmp_path / "VOCdevkit/VOC2010/SegmentationClassContext").rename(tmp_path / "masks")
    with pytest.raises(UserError, match=r"SegmentationClassContext: is missing; mmsegmentation's .*pascal_context\.py"):
        PascalContext("val", str(tmp_path))


def pairs_of(
    root: Path, images: str, masks: str, values: tuple[int, ...], stems: Iterable[str] = ("1", "2", "3")
) -> None:
    """Photos and masks, for whose stem `{}` stands in both patterns."""
    for i, stem in enumerate(stems):
        photo(root / images.format(stem), i)
        index_png(root / masks.format(stem), rows(*values))


def test_gta5_has_cityscapes_classes(tmp_path: Path) -> None:
    pairs_of(tmp_path, "images/{}.png", "labels/{}.png", (7, 26, 0, 34), [f"{i:05}" for i in range(1, 41)])
    sources = [GTA5(split, str(tmp_path)) for split in ("train", "val", "test")]
    assert [len(source) for source in sources] == [38, 2, 2] and all(source.drawn for source in sources)
    assert not set(names(sources[0])) & set(names(sources[1])) and names(sources[1]) == names(sources[2])
    assert sources[0].label_set == cityscapes.LABELS and column(sources[0]) == [0, 13, 255, 255]
    assert names(GTA5("val", str(tmp_path), split_seed=1)) != names(sources[1])


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("bdd100k/images/10k/{split}/{{}}.jpg", "bdd100k/labels/sem_seg/masks/{split}/{{}}.png"),
        ("bdd100k/seg/images/{split}/{{}}.jpg", "bdd100k/seg/labels/{split}/{{}}_train_id.png"),
    ],
)
def test_bdd100k_of_both_releases(tmp_path: Path, images: str, masks: str) -> None:
    for split in ("train", "val"):
        pairs_of(tmp_path, images.format(split=split), masks.format(split=split), (0, 18, 255), ["0004a4c0-d4dff0ad"])
    for root in (tmp_path, tmp_path / "bdd100k"):
        val = BDD100K("test", str(root))
        assert (val.split, names(val), column(val, count=3)) == ("val", ["0004a4c0-d4dff0ad"], [0, 18, 255])
    index_png(val.files(0)[1], rows(19))
    with pytest.raises(UserError, match="label 19 is out of range; 19 classes"):
        val.read(0)


@pytest.mark.parametrize(("kind", "values"), [("labelTrainIds", (0, 13, 255, 18)), ("labelIds", (7, 26, 0, 33))])
def test_acdc_by_condition(tmp_path: Path, kind: str, values: tuple[int, ...]) -> None:
    stems = ["GOPR0475/GOPR0475_frame_000041", "GP010476/GP010476_frame_000054"]
    for condition, split in itertools.product(("fog", "night", "rain", "snow"), ("train", "val")):
        place = f"{condition}/{split}/{{}}"
        pairs_of(tmp_path, f"rgb_anon/{place}_rgb_anon.png", f"gt/{place}_gt_{kind}.png", values, stems)
        index_png(tmp_path / f"gt/{place.format(stems[0])}_gt_invIds.png", rows(9))
    val = ACDC("test", str(tmp_path))
    assert (val.split, len(val), names(val)[0]) == ("val", 8, "fog/GOPR0475/GOPR0475_frame_000041")
    assert column(val) == [0, 13, 255, 18]
    assert names(ACDC("train", str(tmp_path), ["snow", "night"]))[1:3] == [f"night/{stems[1]}", f"snow/{stems[0]}"]
    (tmp_path / f"gt/rain/val/{stems[0]}_gt_{kind}.png").unlink()
    with pytest.raises(
        UserError, match=r"rgb_anon/rain/val/GOPR0475/.*image without mask; .*gt_label(Train)?Ids\.png is"
    ):
        ACDC("val", str(tmp_path))


def test_kitti_draws_its_val(tmp_path: Path) -> None:
    stems = [f"{i:06}" for i in range(10)]
    pairs_of(tmp_path, "training/image_2/{}_10.png", "training/semantic/{}_10.png", (7, 26, 0, 33), stems)
    photo(tmp_path / "training/image_2/000000_11.png")
    train, val = Kitti("train", str(tmp_path)), Kitti("val", str(tmp_path))
    assert sorted(names(train) + names(val)) == stems and len(val) == 2 and val.drawn
    assert column(val) == [0, 13, 255, 18]


def isaid(root: Path) -> Path:
    colors = np.array([[0, 0, 0], [0, 0, 63], [0, 127, 255], [0, 100, 155]], np.uint8)
    for split, stem in itertools.product(("train", "val"), ("P0001", "P0002")):
        photo(root / f"{split}/images/{stem}.png")
        file = root / f"{split}/Semantic_masks/images/{stem}_instance_color_RGB.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colors[rows(0, 1, 2, 3)]).save(file)
    return root


def test_isaid_by_colour_and_in_patches(tmp_path: Path) -> None:
    isaid(tmp_path / "whole")
    val = ISAID("test", str(tmp_path / "whole"))
    assert (val.split, names(val), column(val)) == ("val", ["P0001", "P0002"], [0, 1, 14, 15])
    assert (val.label_set.num_classes, val.label_set.names[14]) == (16, "plane")
    masks = "ann_dir/train/{}_instance_color_RGB.png"
    pairs_of(tmp_path, "img_dir/train/{}.png", masks, (0, 14, 255), ["P0000_0_896_0_896"])
    patches = ISAID("train", str(tmp_path))
    assert (names(patches), column(patches, count=3)) == (["P0000_0_896_0_896"], [0, 14, 255])
    photo(tmp_path / "whole/val/Semantic_masks/images/P0001_instance_color_RGB.png")
    with pytest.raises(UserError, match=r"P0001_instance_color_RGB\.png: colour .* is no class's"):
        val.read(0)
