"""What published recipes make of images and masks, against their sources: zooms, crops, colours and classes."""

from __future__ import annotations

import colorsys
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torchvision.datasets import Cityscapes as Theirs

from src.data.augment.distortion import Distortion
from src.data.augment.transforms import Augment
from src.data.formats.ade20k import ADE20K
from src.data.formats.cityscapes import Cityscapes
from src.data.formats.coco import Coco
from src.data.formats.cocostuff import CocoStuff
from src.data.formats.loveda import LoveDA
from src.data.formats.voc import VOC
from src.data.samples import Pixels
from tests.data.formats.test_public import ade20k, cocostuff, loveda
from tests.data.layouts import box, cityscapes, index_png, photo, rows, voc
from tests.test_recipes_sources import MMSEG, OTHERS, recipe

DRAWS = 300
CROP = 32
# torchvision's coco_utils.py, and the names of these ids in COCO's annotations.
CAT_LIST = [0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72]
COCO_NAMES = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train", 9: "boat", 16: "bird",
    17: "cat", 18: "dog", 19: "horse", 20: "sheep", 21: "cow", 44: "bottle", 62: "chair", 63: "couch",
    64: "potted plant", 67: "dining table", 72: "tv", 77: "cell phone",
}  # fmt: skip


def augment(name: str, **changes: Any) -> tuple[Augment, float]:
    """The recipe's changes but for those of colour, for images of an eighth of the size; and that eighth."""
    node = dict(recipe(name)["data"]["augment"])
    for side in ("short_side", "long_side"):
        node[side] = node[side] // 8 if node[side] else node[side]
    return instantiate({**node, "photometric": 0.0, "flip": 0.0, **changes}), 1 / 8


def zooms(changes: Augment, height: int, width: int) -> list[float]:
    """Measured: how slowly a ramp from left to right rises in the crop."""
    ramp = torch.arange(width, dtype=torch.float32).expand(1, height, width)
    mask = (torch.arange(width) // 4 % 2).expand(height, width).to(torch.uint8)
    torch.manual_seed(1)
    found = []
    for _ in range(DRAWS):
        row = changes(Pixels(ramp, mask, None), [CROP, CROP], 255).image[0, 0]
        inner = row[4:12]  # no padding, no edge
        found.append(7 / float(inner[-1] - inner[0]))
    return found


@pytest.mark.parametrize("name", [n for n in (*MMSEG, *OTHERS) if n != "voc_deeplabv3plus_r101_aug"])
def test_zooms_are_even(name: str) -> None:
    """Against draws from the definition: mmcv's RandomResize, torchvision's RandomResize and ScaleJitter, DINOv3's resize."""
    height, width = 64, 128
    changes, eighth = augment(name, pad=[0.0], antialias=True)
    node = recipe(name)["data"]["augment"]
    fit = 1.0
    if node["short_side"]:
        longest = (node["long_side"] or math.inf) * eighth
        fit = min(longest / width, node["short_side"] * eighth / height)
    drawn = np.random.default_rng(0).uniform(0.5, 2.0, DRAWS) * fit
    ours = np.array(zooms(changes, height, width))
    error = math.sqrt(2 / DRAWS) * (1.5 / math.sqrt(12)) * fit
    assert ours.mean() == pytest.approx(drawn.mean(), abs=4 * error)
    assert ours.mean() / fit == pytest.approx(1.25, abs=0.1)  # drawn log-evenly it would be 1.08
    assert 0.47 * fit <= ours.min() <= 0.56 * fit and 1.92 * fit <= ours.max() <= 2.1 * fit
    for share in (0.25, 0.5, 0.75):  # a window has whole pixels
        assert np.quantile(ours, share) == pytest.approx((0.5 + 1.5 * share) * fit, abs=0.15 * fit)


def test_crops_vary_as_mmsegmentations_do() -> None:
    """cat_max_ratio: resized, then crops until the largest class has less than three quarters of the labelled pixels."""
    mask = torch.zeros(64, 128, dtype=torch.uint8)
    mask[40:, 70:] = 1
    mask[:8] = 255
    changes, _ = augment("cityscapes_deeplabv3plus_r50", pad=[0.0])

    def largest(crop: np.ndarray[Any, Any]) -> float:
        values, counts = np.unique(crop[crop != 255], return_counts=True)
        return float(counts.max() / counts.sum()) if len(values) > 1 else 1.0

    torch.manual_seed(0)
    image = torch.zeros(1, 64, 128)
    ours = [largest(changes(Pixels(image, mask, None), [CROP, CROP], 255).mask.numpy()) for _ in range(DRAWS)]
    random, theirs = np.random.default_rng(0), []
    for _ in range(DRAWS):
        ratio = random.uniform(0.5, 2.0)
        y, x = (np.arange(int(side * ratio)) / ratio for side in mask.shape)
        resized = mask.numpy()[y.astype(int)][:, x.astype(int)]
        for _ in range(11):
            top, left = (random.integers(max(side - CROP, 0) + 1) for side in resized.shape)
            crop = resized[top : top + CROP, left : left + CROP]
            if largest(crop) < 0.75:
                break
        theirs.append(largest(crop))
    varied = [np.mean(np.array(each) <= 0.76) for each in (ours, theirs)]
    assert 0.5 < varied[1] < 1
    assert varied[0] == pytest.approx(varied[1], abs=4 * math.sqrt(2 * varied[1] * (1 - varied[1]) / DRAWS))


def distorted(color: tuple[int, int, int], random: np.random.Generator) -> list[float]:
    """PhotoMetricDistortion of one pixel from its definition: brightness, contrast before or after, saturation, hue."""
    values = np.array(color, float)

    def contrast(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.clip(values * random.uniform(0.5, 1.5), 0, 255) if random.integers(2) else values

    if random.integers(2):
        values = np.clip(values + random.uniform(-32, 32), 0, 255)
    first = random.integers(2)
    values = contrast(values) if first else values
    hue, saturation, value = colorsys.rgb_to_hsv(*values / 255)
    if random.integers(2):
        saturation = min(1.0, saturation * random.uniform(0.5, 1.5))
    if random.integers(2):
        hue = (hue + random.integers(-18, 18) / 180) % 1
    values = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    return list(values if first else contrast(values))


@pytest.mark.parametrize("color", [(120, 80, 40), (250, 250, 10), (30, 200, 220)])
def test_colours_change_as_mmsegmentations_do(color: tuple[int, int, int]) -> None:
    node = recipe("voc_fcn_r50")["data"]["augment"]
    strengths = {key: node[key] for key in ("brightness", "contrast", "saturation", "hue")}
    change = Distortion(node["photometric"], **strengths, additive=True)
    image = torch.tensor(color, dtype=torch.uint8)[:, None, None]
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    ours = np.array([change(image).flatten().tolist() for _ in range(1500)], float)
    theirs = np.array([distorted(color, random) for _ in range(1500)])
    for mine, others in zip(ours.T, theirs.T, strict=True):
        error = math.sqrt((mine.var() + others.var()) / 1500)
        assert mine.mean() == pytest.approx(others.mean(), abs=4 * error + 0.5)
        assert mine.std() == pytest.approx(others.std(), rel=0.12, abs=1)
    assert (ours == np.array(color)).all(axis=1).mean() == pytest.approx(1 / 16, abs=0.03)


class TestClasses:
    def test_cityscapes(self, tmp_path: Path) -> None:
        cityscapes(tmp_path, 1)
        ids = [each.id for each in Theirs.classes if each.id >= 0]
        assert len(ids) == 34
        label = np.tile(np.resize(ids, 34)[:, None], (1, 4))
        for file in tmp_path.glob("gtFine/train/*/*_labelIds.png"):
            index_png(file, label)
        for file in tmp_path.glob("leftImg8bit/train/*/*.png"):
            photo(file, size=(34, 4))
        data = Cityscapes("train", str(tmp_path))
        of = {each.id: each.train_id if 0 <= each.train_id < 19 else 255 for each in Theirs.classes}
        assert data.read(0)[1][:, 0].tolist() == [of[each] for each in ids]
        assert list(data.label_set.names) == [each.name for each in Theirs.classes if 0 <= each.train_id < 19]

    @pytest.mark.parametrize(
        ("make", "build", "values", "classes"),
        [
            (ade20k, ADE20K, {0: 255, 1: 0, 150: 149, 20: 19}, 150),  # reduce_zero_label
            (cocostuff, CocoStuff, {0: 0, 12: 11, 181: 170, 255: 255}, 171),  # clsID_to_trID of the converter
            (loveda, LoveDA, {0: 255, 1: 0, 7: 6}, 7),  # reduce_zero_label
            (voc, VOC, {0: 0, 15: 15, 20: 20, 255: 255}, 21),
        ],
    )
    def test_values(
        self, make: Callable[[Path], Path], build: Any, values: dict[int, int], classes: int, tmp_path: Path
    ) -> None:
        make(tmp_path)
        for file in tmp_path.rglob("*.png"):
            if any(part in str(file) for part in ("annotations", "stuffthingmaps", "masks_png", "SegmentationClass/")):
                index_png(file, rows(*values))
        data = build("val", str(tmp_path))
        assert data.read(0)[1][: len(values), 0].tolist() == list(values.values())
        assert data.label_set.num_classes == classes

    def test_coco_in_the_order_of_voc(self, tmp_path: Path) -> None:
        (tmp_path / "annotations").mkdir()
        photo(tmp_path / "val2017/000000000001.jpg", size=(64, 64))
        outlines = [(number, box(2 * i, 0, 2 * i + 2, 64)) for i, number in enumerate(COCO_NAMES)]
        things = [
            {"id": i, "image_id": 1, "category_id": number, "iscrowd": 0, "area": 128, "segmentation": [outline]}
            for i, (number, outline) in enumerate([*outlines, (1, box(60, 0, 64, 64)), (2, box(60, 0, 64, 64))], 1)
        ]
        content = {
            "images": [{"id": 1, "file_name": "000000000001.jpg", "height": 64, "width": 64}], "annotations": things,
            "categories": [{"id": number, "name": name} for number, name in COCO_NAMES.items()],
        }  # fmt: skip
        (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(content))
        classes = recipe("coco_deeplabv3_torchvision")["data"]["dataset"]["classes"]
        data = Coco("val", str(tmp_path), classes=classes)
        mask = data.read(0)[1]
        expected = [CAT_LIST.index(number) if number in CAT_LIST else 0 for number in COCO_NAMES]
        assert mask[: 2 * len(expected) : 2, 5].tolist() == expected
        assert (
            mask[61:, 5] != 255
        ).all()  # of two things on one another one is seen; torchvision ignores both: the recipe says so
