"""One's own annotations in COCO's format, as labelling tools export them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.data.formats.coco import Coco
from src.errors import UserError
from tests.data.layouts import SIZE, box, photo

mask_code = pytest.importorskip("pycocotools.mask")

CATEGORIES = [
    {"id": 0, "name": "things", "supercategory": "none"},
    {"id": 5, "name": "car", "supercategory": "things"},
    {"id": 9, "name": "road", "supercategory": "things"},
]


def content(files: list[str], categories: list[dict[str, Any]] = CATEGORIES) -> dict[str, Any]:
    """Of each image a road as polygon, a car in compressed code on it, and another in plain code."""
    small = np.zeros(SIZE, np.uint8, order="F")
    small[4:8, 4:8] = 1
    compressed = mask_code.encode(small)
    compressed["counts"] = compressed["counts"].decode()
    plain = {"size": list(SIZE), "counts": [24 * 30, 24, 24]}  # the last column but one
    drawn = [(9, [box(2, 2, 22, 26)]), (5, compressed), (5, plain)]
    images, annotations = [], []
    for i, file in enumerate(files):
        images.append({"id": i, "file_name": file, "height": SIZE[0], "width": SIZE[1]})
        annotations += [
            {"id": 10 * i + k, "image_id": i, "category_id": c, "iscrowd": 0, "area": 9, "bbox": [0, 0, 1, 1],
             "segmentation": outline} for k, (c, outline) in enumerate(drawn)
        ]  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": categories}


def write(file: Path, text: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(text))


def roboflow(root: Path) -> None:
    for split in ("train", "valid", "test"):
        for i in range(5):
            photo(root / f"{split}/{i}.jpg", i)
        write(root / split / "_annotations.coco.json", content([f"{i}.jpg" for i in range(5)]))


def cvat(root: Path) -> None:
    for i in range(5):
        photo(root / f"images/{i}.jpg", i)
    write(root / "annotations/instances_default.json", content([f"{i}.jpg" for i in range(5)]))


def cvat_subsets(root: Path) -> None:
    for split in ("train", "val"):
        for i in range(5):
            photo(root / f"images/{split}/{i}.jpg", i)
        write(root / f"annotations/instances_{split}.json", content([f"{i}.jpg" for i in range(5)]))


def label_studio(root: Path) -> None:
    for i in range(5):
        photo(root / f"images/{i}.jpg", i)
    write(root / "result.json", content([f"..\\..\\data\\media\\upload\\1\\{i}.jpg" for i in range(5)]))


@pytest.mark.parametrize(
    ("export", "sizes"),
    [(roboflow, [5, 5, 5]), (cvat, [4, 1, 1]), (cvat_subsets, [5, 5, 5]), (label_studio, [4, 1, 1])],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_own_categories_and_names(tmp_path: Path, export: Callable[[Path], None], sizes: list[int]) -> None:
    export(tmp_path)
    sources = [Coco(split, str(tmp_path)) for split in ("train", "val", "test")]
    assert [len(source) for source in sources] == sizes
    assert sources[2].split == ("test" if export is roboflow else "val")
    for source in sources:
        assert source.label_set.names == ("background", "car", "road")
        mask = source.read(0)[1]
        assert [int(mask[y, x]) for y, x in ((0, 0), (12, 12), (5, 5), (12, 30))] == [0, 2, 1, 1]
        assert source.files(0)[0].is_file()
    if sizes == [4, 1, 1]:
        names = {sources[0].name(i) for i in range(4)}
        assert len(names | {sources[1].name(0)}) == 5
        assert len(Coco("val", str(tmp_path), val_fraction=0.4)) == 2


def test_a_split_without_one_of_the_categories_has_the_same_classes(tmp_path: Path) -> None:
    roboflow(tmp_path)
    few = content(["0.jpg"], CATEGORIES[:1] + CATEGORIES[2:])
    few["annotations"] = [a for a in few["annotations"] if a["category_id"] == 9]
    write(tmp_path / "valid/_annotations.coco.json", few)
    val = Coco("val", str(tmp_path))
    assert val.label_set.names == ("background", "car", "road")
    assert val.read(0)[1].unique().tolist() == [0, 2]
    more = content(["0.jpg"], [*CATEGORIES, {"id": 11, "name": "bus", "supercategory": "things"}])
    write(tmp_path / "valid/_annotations.coco.json", more)
    with pytest.raises(UserError, match="has the category 'bus', which the training file lacks"):
        Coco("val", str(tmp_path))


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train2017 is missing; unpack .* or give a root with your own annotations"):
        Coco("train", str(tmp_path))
    cvat(tmp_path)
    (tmp_path / "images/3.jpg").unlink()
    with pytest.raises(UserError, match=r"instances_default\.json: its image '3\.jpg' is in none of images/"):
        Coco("train", str(tmp_path))


@pytest.mark.parametrize("name", ["../outside.jpg", "/etc/hostname", "", None, 3])
def test_a_file_name_leads_nowhere_else(tmp_path: Path, name: Any) -> None:
    photo(tmp_path / "outside.jpg")
    cvat(tmp_path / "root")
    text = content([f"{i}.jpg" for i in range(5)])
    text["images"][0]["file_name"] = name
    write(tmp_path / "root/annotations/instances_default.json", text)
    with pytest.raises(UserError, match=r"instances_default\.json: (its image|an image has no file_name)"):
        Coco("train", str(tmp_path / "root"))
