"""Tiny data sets in the official layouts, for tests that have no real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.data.labels import voc_colors

SIZE = (24, 32)


def photo(file: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)).save(file)


def index_png(file: Path, values: npt.NDArray[np.integer], palette: list[list[int]] | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if palette is not None:
        image.putpalette([channel for color in palette for channel in color])
    image.save(file)


def rows(*values: int) -> npt.NDArray[np.integer]:
    """A mask whose rows have the values in turn."""
    return np.tile(np.resize(values, SIZE[0])[:, None], (1, SIZE[1]))


def cityscapes(root: Path, count: int = 3, kind: str = "labelIds") -> Path:
    values = rows(7, 26, 0, 33) if kind == "labelIds" else rows(0, 13, 255, 18)
    for split, folder in (("train", "gtFine"), ("val", "gtFine"), ("train", "gtCoarse"), ("train_extra", "gtCoarse")):
        for i in range(count):
            name = f"aachen_{i:06}_000019"
            photo(root / f"leftImg8bit/{split}/aachen/{name}_leftImg8bit.png", i)
            index_png(root / f"{folder}/{split}/aachen/{name}_{folder}_{kind}.png", values)
    return root


def voc(root: Path, count: int = 3, augmented: bool = True) -> Path:
    base = root / "VOCdevkit/VOC2012"
    lists = base / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    named = {split: [f"{split}_{i:06}" for i in range(count)] for split in ("train", "val", "extra")}
    for split, names in named.items():
        for i, name in enumerate(names):
            photo(base / f"JPEGImages/{name}.jpg", i)
            if split != "extra":
                index_png(base / f"SegmentationClass/{name}.png", rows(0, 15, 20, 255), voc_colors(256))
            elif augmented:
                index_png(base / f"SegmentationClassAug/{name}.png", rows(0, 1))
    named["trainval"] = named["train"] + named["val"]
    if augmented:
        named["trainaug"] = named["train"] + named["extra"]
    for split in named.keys() - {"extra"}:
        (lists / f"{split}.txt").write_text("\n".join(named[split]) + "\n")
    return root


def box(top: int, left: int, bottom: int, right: int) -> list[float]:
    """A rectangle as COCO's polygon."""
    return [left, top, right, top, right, bottom, left, bottom]


def coco(root: Path, count: int = 3, names: tuple[str, ...] = ("person", "dog", "cat")) -> Path:
    """Instances: a large thing of the first category, a small one of the second on it, a crowd of the third below; stuff
    and panoptic annotations of the same images."""
    ids = {name: 3 * k + 1 for k, name in enumerate(names)}  # not contiguous, as COCO's
    categories = [{"id": i, "name": name, "isthing": 1, "color": [i, 2 * i, 3 * i]} for name, i in ids.items()]
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        images: list[dict[str, Any]] = []
        instances: list[dict[str, Any]] = []
        panoptic: list[dict[str, Any]] = []
        for i in range(count):
            name = f"{i:012}"
            photo(root / split / f"{name}.jpg", i)
            images.append({"id": i + 7, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]})
            crowd = {"size": list(SIZE), "counts": [24 * 24, 24 * 8]}  # column by column: the eight at the right
            for k, (outline, category, is_crowd) in enumerate(
                [([box(2, 2, 22, 26)], names[0], 0), ([box(4, 4, 8, 8)], names[1], 0), (crowd, names[2], 1)]
            ):
                area = [480, 16, 192][k]
                instances.append(
                    {"id": 10 * i + k + 1, "image_id": i + 7, "category_id": ids[category], "iscrowd": is_crowd,
                     "area": area, "segmentation": outline}
                )  # fmt: skip
            index_png(root / f"stuffthingmaps/{split}/{name}.png", rows(0, 90 + 1, 181, 255))
            numbers = rows(0, 5, 256 * 3 + 1, 65536 + 2)
            rgb = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=-1).astype(np.uint8)
            file = root / f"annotations/panoptic_{split}/{name}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(rgb).save(file)
            segments = [(5, names[0], 0), (769, names[1], 0), (65538, names[2], 1)]
            info = [{"id": s, "category_id": ids[c], "iscrowd": crowded} for s, c, crowded in segments]
            panoptic.append({"image_id": i + 7, "file_name": f"{name}.png", "segments_info": info})
        for kind, entries in (("instances", instances), ("panoptic", panoptic)):
            content = {"images": images, "annotations": entries, "categories": categories}
            (root / f"annotations/{kind}_{split}.json").write_text(json.dumps(content))
    return root
