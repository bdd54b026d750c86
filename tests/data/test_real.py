"""Real samples, where `PIXELWISE_DATA` names a folder that has them: camvid, dubai, coco_sample, voc_sample,
cityscapes_sample."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from src.data.formats.camvid import CamVid
from src.data.formats.cityscapes import Cityscapes
from src.data.formats.coco import Coco
from src.data.formats.folder import Folder
from src.data.formats.voc import NAMES
from src.data.labels import voc_colors
from src.data.sources import Source, class_counts
from src.training.build import build_data
from tests.conftest import settings


def real(name: str) -> str:
    """The folder of a data set."""
    place = Path(os.environ.get("PIXELWISE_DATA", "")) / name
    if "PIXELWISE_DATA" not in os.environ or not place.is_dir():
        pytest.skip(f"PIXELWISE_DATA names no folder with {name}")
    return str(place)


def shares(source: Source) -> dict[str, float]:
    counts = class_counts(source)
    return dict(zip(source.label_set.names, (counts / counts.sum()).tolist(), strict=True))


def test_camvid() -> None:
    root = real("camvid")
    train, val, test = (CamVid(split, root) for split in ("train", "val", "test"))
    assert (len(train), len(val)) == (367, 101)
    assert test.split in ("val", "test")
    assert train.read(0)[0].shape == (3, 360, 480)
    masks = torch.stack([train.read(i)[1] for i in range(0, 367, 12)])
    share = torch.bincount(masks.flatten(), minlength=256) / masks.numel()
    assert share[3] == pytest.approx(0.317, abs=0.03)  # road
    assert share[255] == pytest.approx(0.04, abs=0.02)  # void


def test_dubai_of_palette_and_rgb_masks(tmp_path: Path) -> None:
    node = settings(tmp_path, "data=dubai", f"data.root={real('dubai')}", small=False)["data"]
    datamodule = build_data(node, seed=0)
    train, val = datamodule.source("train"), datamodule.source("val")
    assert (len(train), len(val)) == (54, 9)
    assert train.name(9) == "2/image_part_001"
    for source in (train, val):
        share = shares(source)
        assert share["land"] > share["building"] > 0.01
        assert sum(share.values()) == pytest.approx(1)


def test_coco_instances() -> None:
    train = Coco("train", real("coco_sample"))
    assert (len(train), train.label_set.num_classes) == (128, 81)
    share = shares(train)
    assert share["background"] > 0.4
    assert share["person"] > 0.05


def test_cityscapes() -> None:
    val = Cityscapes("val", real("cityscapes_sample"))
    image, mask = val.read(0)
    assert image.shape[-2:] == mask.shape
    share = shares(val)
    assert share["road"] > 0.2
    assert share["train"] == 0


def test_voc_masks_by_index_and_by_colour_agree() -> None:
    root = real("voc_sample")
    options: dict[str, Any] = {"images": "JPEGImages", "masks": "SegmentationClass"}
    by_index = Folder("train", root, list(NAMES), mask_format="index", **options)
    colors: dict[str, Any] = {"colors": voc_colors(21), "ignore_colors": [[224, 224, 192]]}
    by_color = Folder("train", root, list(NAMES), mask_format="rgb", **colors, **options)
    for i in range(len(by_index)):
        mask = by_index.read(i)[1]
        assert set(mask.unique().tolist()) <= {*range(21), 255}
        assert torch.equal(mask, by_color.read(i)[1])
