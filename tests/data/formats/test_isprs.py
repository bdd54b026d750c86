"""ISPRS' two cities in the official layouts, in miniature."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from src.data import warn_once
from src.data.formats import potsdam, vaihingen
from src.data.formats.potsdam import Potsdam
from src.data.formats.vaihingen import Vaihingen
from src.errors import UserError
from tests.data.formats.test_geotiff import write_raster

COLORS = np.array(
    [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0)], np.uint8
)
SIDE = 70  # pixels of a tile


def truth(values: Sequence[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A colour mask [3, h, w] whose rows are of the classes in turn."""
    rows = np.resize(values, SIDE)
    return np.ascontiguousarray(np.broadcast_to(COLORS[rows].T[:, :, None], (3, SIDE, SIDE)))


def photo(bands: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(1, 255, (bands, SIDE, SIDE), np.uint8)


def make_potsdam(root: Path, labels: str = "5_Labels_all", nested: str = "") -> Path:
    for seed, name in enumerate([*potsdam._TRAIN, *potsdam._TEST]):
        write_raster(root / f"2_Ortho_RGB{nested}/top_potsdam_{name}_RGB.tif", photo(3, seed))
        write_raster(root / f"4_Ortho_RGBIR{nested}/top_potsdam_{name}_RGBIR.tif", photo(4, seed))
        write_raster(root / f"{labels}/top_potsdam_{name}_label.tif", truth(range(6)), crs=None)
        eroded = root / f"5_Labels_all_noBoundary/top_potsdam_{name}_label_noBoundary.tif"
        write_raster(eroded, truth([0, 6, 1, 5]), crs=None)
    return root


def make_vaihingen(root: Path) -> Path:
    for seed, number in enumerate([*vaihingen._TRAIN, *vaihingen._TEST]):
        name = f"top_mosaic_09cm_area{number}"
        write_raster(root / f"top/{name}.tif", photo(3, seed))
        if number in vaihingen._TRAIN:
            write_raster(root / f"gts_for_participants/{name}.tif", truth(range(6)))
    return root


@pytest.mark.parametrize(
    ("labels", "nested"), [("5_Labels_all", ""), ("5_Labels_all/5_Labels_all", "/2_Ortho_RGB"), (".", "")]
)
def test_potsdams_tiles_are_split_as_in_the_contest(tmp_path: Path, labels: str, nested: str) -> None:
    make_potsdam(tmp_path, labels, nested)
    train, val = Potsdam("train", str(tmp_path)), Potsdam("test", str(tmp_path))
    assert (len(train), len(val), val.split) == (24, 14, "val")
    scenes = {source.whole(i) for source in (train, val) for i in range(len(source))}
    assert len(scenes) == 38 and {"6_7", "7_13", "2_10"} <= scenes
    image, mask = train.read(0)
    assert (image.shape, image.dtype, train.name(0)) == ((3, SIDE, SIDE), torch.uint8, "2_10_0_0")
    assert mask[:7, 0].tolist() == [0, 1, 2, 3, 4, 5, 0]


def test_potsdams_choices(tmp_path: Path) -> None:
    make_potsdam(tmp_path)
    tiled = Potsdam("train", str(tmp_path), "rgbir", ignore_clutter=True, tile=[32, 40])
    assert (len(tiled), tiled.channels, tiled.label_set.num_classes) == (24 * 3 * 2, 4, 5)
    image, mask = tiled.read(0)
    assert image.shape == (4, 32, 40) and mask[:7, 0].tolist() == [0, 1, 2, 3, 4, 255, 0]
    eroded: dict[Literal["none", "eval", "all"], list[list[int]]] = {
        "none": [[0, 1, 2, 3], [0, 1, 2, 3]],
        "eval": [[0, 1, 2, 3], [0, 255, 1, 5]],
        "all": [[0, 255, 1, 5], [0, 255, 1, 5]],
    }
    for choice, rows in eroded.items():
        sources = [Potsdam(split, str(tmp_path), eroded=choice) for split in ("train", "val")]
        assert [source.read(0)[1][:4, 0].tolist() for source in sources] == rows
    windows = Potsdam("val", str(tmp_path), eval_window=64, eval_overlap=32)
    counted = sum(int((windows.read(i)[1] != 255).sum()) for i in range(len(windows)))
    assert counted == 14 * SIDE * SIDE  # each pixel once


def test_colours_near_a_class_are_its_and_others_are_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_potsdam(tmp_path)
    colors = truth([4])
    colors[:, 0, 0] = (252, 255, 0)
    colors[:, 0, 1] = (120, 130, 90)
    colors[:, 0, 2] = (255, 0, 255)
    write_raster(tmp_path / "5_Labels_all/top_potsdam_2_10_label.tif", colors)
    warn_once._said.clear()
    mask = Potsdam("train", str(tmp_path)).read(0)[1]
    assert mask[0, :4].tolist() == [4, 255, 255, 4]
    assert "top_potsdam_2_10_label.tif: colour 120,130,90 in row 0, column 1 is near no class's" in caplog.text


def test_what_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    make_potsdam(tmp_path)
    file = tmp_path / "5_Labels_all/top_potsdam_2_13_label.tif"
    write_raster(file, truth([0])[:, :30])
    with pytest.raises(UserError, match=r"top_potsdam_2_13_label\.tif: mask is 70x30 but its image .* is 70x70"):
        Potsdam("val", str(tmp_path))
    write_raster(file, truth([0])[:1])
    with pytest.raises(UserError, match=r"top_potsdam_2_13_label\.tif: has 1 bands"):
        Potsdam("val", str(tmp_path))
    file.unlink()
    with pytest.raises(
        UserError, match=r"top_potsdam_2_13_label\.tif: is missing; unpack 5_Labels_all\.zip into .*_all$"
    ):
        Potsdam("val", str(tmp_path))
    with pytest.raises(UserError, match=r"2_13_IRRG\.tif: is missing; unpack 3_Ortho_IRRG\.zip"):
        Potsdam("val", str(tmp_path), "irrg")
    with pytest.raises(UserError, match="eval_overlap: 64 is more than half of eval_window=96"):
        Potsdam("val", str(tmp_path), eval_window=96, eval_overlap=64)


def test_vaihingen_trains_with_what_participants_have(tmp_path: Path) -> None:
    make_vaihingen(tmp_path)
    train = Vaihingen("train", str(tmp_path), tile=[64, 64])
    assert (len(train), train.name(3), train.whole(3)) == (16 * 4, "area1_6_6", "area1")
    assert train.read(0)[1][:7, 0].tolist() == [0, 1, 2, 3, 4, 5, 0]
    with pytest.raises(
        UserError, match=r"COMPLETE/top_mosaic_09cm_area2\.tif: is missing; unpack .*_truth_COMPLETE\.zip"
    ):
        Vaihingen("val", str(tmp_path))
    for number in (*vaihingen._TRAIN, *vaihingen._TEST):
        name = f"top_mosaic_09cm_area{number}"
        write_raster(tmp_path / f"ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE/{name}.tif", truth([3]))
        write_raster(tmp_path / f"{name}_noBoundary.tif", truth([2, 6]))  # an archive without a folder
    val = Vaihingen("test", str(tmp_path))
    assert (val.split, len(val), val.read(0)[1][:2, 0].tolist()) == ("val", 17, [3, 3])
    assert Vaihingen("val", str(tmp_path), eroded="eval").read(0)[1][:2, 0].tolist() == [2, 255]


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(UserError, match=r"rasterio is needed .*\.\[geo\]"):
        Potsdam("train", str(tmp_path))
