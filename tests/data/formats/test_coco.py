"""COCO's layouts and its three kinds of annotation."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.data.formats.coco import Coco
from src.errors import UserError
from tests.data.layouts import box, coco

JSON = "annotations/instances_train2017.json"


def change(root: Path, how: Callable[[dict[str, Any]], None], file: str = JSON) -> Path:
    content = json.loads((root / file).read_text())
    how(content)
    (root / file).write_text(json.dumps(content))
    return root


def test_smaller_things_lie_on_larger_ones_and_crowds_are_ignored(tmp_path: Path) -> None:
    train = Coco("train", str(coco(tmp_path)))
    assert train.label_set.names == ("background", "person", "dog", "cat")
    image, mask = train.read(1)
    assert image.shape == (3, 24, 32)
    assert mask[0, 0] == 0
    assert mask[15, 15] == 1
    assert mask[5, 5] == 2
    assert mask[15, 30] == 255  # the crowd alone
    assert mask[15, 25] == 1  # a single person in the crowd
    assert (mask == 2).sum() == 16
    assert train.name(1) == "000000000001"
    assert Coco("test", str(tmp_path)).split == "val"


def test_the_order_of_annotations_does_not_matter(tmp_path: Path) -> None:
    before = Coco("train", str(coco(tmp_path))).read(0)[1]
    change(tmp_path, lambda content: content["annotations"].reverse())
    assert np.array_equal(Coco("train", str(tmp_path)).read(0)[1], before)


def test_chosen_classes(tmp_path: Path) -> None:
    chosen = Coco("train", str(coco(tmp_path)), classes=["dog"])
    assert chosen.label_set.names == ("background", "dog")
    assert chosen.read(0)[1].unique().tolist() == [0, 1]
    with pytest.raises(UserError, match="has no category 'dogg', did you mean 'dog'"):
        Coco("train", str(tmp_path), classes=["dogg"])


def test_images_without_enough_are_left_out_of_training_only(tmp_path: Path) -> None:
    def shrink(content: dict[str, Any]) -> None:
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 8]

    for split in ("train", "val"):
        change(coco(tmp_path / split), shrink, f"annotations/instances_{split}2017.json")
    assert len(Coco("train", str(tmp_path / "train"))) == 3
    assert Coco("train", str(tmp_path / "train")).read(1)[1].unique().tolist() == [0]
    assert len(Coco("train", str(tmp_path / "train"), min_area=100)) == 2
    assert len(Coco("val", str(tmp_path / "val"), min_area=100)) == 3


def test_reading_leaves_nothing_behind(tmp_path: Path) -> None:
    train = Coco("train", str(coco(tmp_path)), classes=["dog"])
    known: Any = train._annotations._coco.imgToAnns  # type: ignore[attr-defined]
    before = len(known)
    for i in range(3):
        train.read(i)
    assert len(known) == before


def test_stuff(tmp_path: Path) -> None:
    val = Coco("val", str(coco(tmp_path)), kind="stuff")
    assert val.label_set.num_classes == 171
    mask = val.read(0)[1]
    assert [val.label_set.names[k] for k in mask[:3, 0].tolist()] == ["person", "banner", "wood"]
    assert mask[3, 0] == 255
    file = tmp_path / "stuffthingmaps/val2017/000000000000.png"
    Image.fromarray(np.full((24, 32), 11, np.uint8)).save(file)  # "street sign", which nobody labelled
    with pytest.raises(UserError, match="label 11 is out of range; 171 classes are 0 to 181"):
        val.read(0)


def test_panoptic(tmp_path: Path) -> None:
    val = Coco("val", str(coco(tmp_path)), kind="panoptic")
    assert val.label_set.names == ("person", "dog", "cat")
    assert val.label_set.colors[1] == (4, 8, 12)
    assert val.read(2)[1][:4, 0].tolist() == [255, 0, 1, 255]  # no segment, person, dog, crowd
    file = tmp_path / "annotations/panoptic_val2017/000000000000.png"
    Image.fromarray(np.full((24, 32, 3), 9, np.uint8)).save(file)
    with pytest.raises(UserError, match=r"segment 592137 is not in .*panoptic_val2017\.json"):
        val.read(0)


def _unknown_category(content: dict[str, Any]) -> None:
    content["annotations"][0]["category_id"] = 99


def _box_only(content: dict[str, Any]) -> None:
    content["annotations"][0]["segmentation"] = []


def _two_points(content: dict[str, Any]) -> None:
    content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]


def _odd(content: dict[str, Any]) -> None:
    content["annotations"][0]["segmentation"] = [box(1, 1, 5, 5), [*box(2, 2, 4, 4), 3]]


def _other_size(content: dict[str, Any]) -> None:
    content["annotations"][0]["segmentation"] = {"size": [10, 10], "counts": [0, 100]}


def _no_categories(content: dict[str, Any]) -> None:
    del content["categories"]


def _turned(content: dict[str, Any]) -> None:
    for image in content["images"]:
        image["height"], image["width"] = image["width"], image["height"]
    content["annotations"] = []


def _no_such_image(content: dict[str, Any]) -> None:
    content["images"][0]["file_name"] = "none.jpg"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_unknown_category, "annotation 1 is of category 99, which the file does not name"),
        (_box_only, "annotation 1 of image 7 has no good segmentation (it is missing or empty)"),
        (_two_points, "annotation 1 of image 7 has no good segmentation (a polygon needs three points"),
        (_odd, "annotation 1 of image 7 has no good segmentation (a polygon needs three points"),
        (_other_size, "annotation 1 of image 7 has no good segmentation (its size is [10, 10]"),
        (_no_categories, "names no images or no categories"),
        (_turned, "image 7: mask is 24x32 but its image"),
        (_no_such_image, "none.jpg: this image of"),
    ],
)
def test_bad_annotations_are_named(tmp_path: Path, spoil: Callable[[dict[str, Any]], None], said: str) -> None:
    change(coco(tmp_path), spoil)
    with pytest.raises(UserError) as caught:
        Coco("train", str(tmp_path)).read(0)
    assert str(tmp_path / JSON) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["instances", "panoptic"])
@pytest.mark.parametrize("text", ["", "[1, 2]", '{"images": [{}], "annotations": [{}], "categories": [{}]}', None])
def test_bad_files_are_named(tmp_path: Path, kind: Any, text: str | None) -> None:
    file = coco(tmp_path) / f"annotations/{kind}_train2017.json"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(UserError) as caught:
        Coco("train", str(tmp_path), kind)
    assert str(caught.value).startswith(f"{file}: is ")
    assert "\n" not in str(caught.value)


def test_classes_are_of_instances(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="classes and min_area choose instances"):
        Coco("train", str(coco(tmp_path)), "stuff", classes=["dog"])


def test_without_pycocotools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco(tmp_path)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[coco\]"'):
        Coco("train", str(tmp_path))
    Coco("train", str(tmp_path), "panoptic").read(0)
