"""Rasters: windows are the same pixels as whole reads, what has no data is ignored, grids that differ are refused."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin

from src.data import warn_once
from src.data.datamodule import SegmentationDataModule
from src.data.formats.geotiff import GeoTiff
from src.errors import UserError
from src.train import train
from tests.conftest import settings

Array = npt.NDArray[Any]
LABELS: dict[str, Any] = {"building": 1, "water": [2, 3]}
ORIGIN = (500000.0, 5400000.0)


def write_raster(
    file: Path, values: Array, nodata: float | None = None, crs: str | None = "EPSG:32632", pixel: float = 0.5,
    origin: tuple[float, float] = ORIGIN,
) -> Path:  # fmt: skip
    """Writes bands [C, h, w]."""
    file.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    with rasterio.open(
        file, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, nodata=nodata, crs=crs,
        transform=from_origin(*origin, pixel, pixel),
    ) as sink:  # fmt: skip
        sink.write(values)
    return file


def scene(
    height: int = 70, width: int = 90, bands: int = 4, dtype: str = "uint16", seed: int = 0
) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    label = np.kron(rng.integers(0, 4, (height // 10, width // 10)), np.ones((10, 10))).astype(np.uint8)
    image = label[None] * 60 + rng.integers(1, 50, (bands, height, width))
    return image.astype(dtype), label


def write(root: Path, count: int = 4, dtype: str = "uint8", **keys: Any) -> Path:
    for i in range(count):
        image, label = scene(dtype=dtype, seed=i)
        write_raster(root / f"s{i}_image.tif", image, **keys)
        write_raster(root / f"s{i}_label.tif", label[None])
    return root


PATTERNS: dict[str, Any] = {"images": "*_image.tif", "masks": "*_label.tif"}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_windows_are_the_whole_scene(tmp_path: Path, dtype: str, split: str) -> None:
    write(tmp_path, dtype=dtype)
    keys: dict[str, Any] = {"bands": [4, 1], "intensity": [0, 300], "val": ["s2"], **PATTERNS}
    whole = GeoTiff(split, str(tmp_path), LABELS, **keys)
    tiles = GeoTiff(split, str(tmp_path), LABELS, tile=[32, 40], eval_window=64, eval_overlap=32, **keys)
    assert len(tiles) > len(whole)
    image, mask = whole.read(0)
    assert image.shape == (2, 70, 90)
    assert str(image.dtype) == f"torch.{dtype if dtype != 'float64' else 'float32'}"
    assert (whole.channels, whole.intensity) == (2, (0, 300))
    seen = torch.zeros(70, 90, dtype=torch.int64)
    for index in range(len(tiles) // len(whole)):
        part, its = tiles.read(index)
        top, left = (int(n) for n in tiles.name(index).split("_")[1:])
        area = np.s_[top : top + its.shape[0], left : left + its.shape[1]]
        assert torch.equal(part.float(), image.float()[:, *area])
        counted = its != 255  # the scene itself has no ignored pixel
        assert torch.equal(its[counted], mask[area][counted])
        assert split == "val" or its.shape == (32, 40)
        assert int((~counted).sum()) == tiles.margin(index)
        seen[area] += counted
    assert seen.min() == 1
    assert split == "train" or seen.max() == 1  # each pixel counts once
    assert mask.unique().tolist() == [0, 1, 2]


def test_what_has_no_data_is_ignored(tmp_path: Path) -> None:
    image, label = scene(dtype="float32", bands=2)
    image[0, 3, 4], image[1, 5, 6], image[1, 7, 8] = -9999, -9999, np.nan
    label[20:30] = 77
    label[31, 32] = 255
    write_raster(tmp_path / "train/a.tif", image, nodata=-9999)
    write_raster(tmp_path / "masks/a.tif", label[None], nodata=77)
    keys: dict[str, Any] = {"images": "{split}", "masks": "masks", "bands": [1, 2], "intensity": [0, 300]}
    seen, mask = GeoTiff("train", str(tmp_path), LABELS, **keys).read(0)
    assert seen.isfinite().all()
    assert [int(mask[at]) for at in ((3, 4), (5, 6), (7, 8))] == [255] * 3
    assert (mask[20:30] == 255).all()  # the label's nodata value
    listed = GeoTiff("train", str(tmp_path), {"ground": 77, **LABELS}, ignore=[255], others="ignore", **keys).read(0)[1]
    assert (listed[20:30] == 0).all()  # … unless it is a class's
    assert int(listed[31, 32]) == 255


ONE: dict[str, Any] = {"images": "{split}", "masks": "masks"}


def test_zero_as_nodata_of_a_label_is_background(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As QGIS and gdal_rasterize write polygons: 0 around them, declared as nodata."""
    warn_once._said.clear()
    image, label = scene(bands=3, dtype="uint8")
    write_raster(tmp_path / "train/a.tif", image)
    write_raster(tmp_path / "masks/a.tif", label[None], nodata=0)
    plain = torch.from_numpy(label)
    mask = GeoTiff("train", str(tmp_path), {"building": 1}, **ONE).read(0)[1]
    assert torch.equal(mask, (plain == 1).to(torch.uint8))
    assert "declare 0 as no data" in caplog.text
    ignored = GeoTiff("train", str(tmp_path), {"building": 1}, ignore=[0], **ONE).read(0)[1]
    assert torch.equal(ignored == 255, plain == 0)
    others = GeoTiff("train", str(tmp_path), {"building": 1, "water": 2}, others="ignore", **ONE).read(0)[1]
    assert torch.equal(others == 255, (plain != 1) & (plain != 2))
    assert caplog.text.count("declare 0") == 1


@pytest.mark.parametrize("bands", [[1, 2, 3], [3, 1], [2]])
def test_a_dark_band_is_no_missing_pixel(tmp_path: Path, bands: list[int]) -> None:
    """Ignored is what GDAL's data-set mask leaves out."""
    image, label = scene(bands=4, dtype="uint8")
    image[0, :30] = 0
    image[1:3, 20:40] = 0
    image[:, 25:28, :9] = 0
    image[3, 25, 0] = 7  # of a band that may not even be read
    write_raster(tmp_path / "train/a.tif", image, nodata=0)
    write_raster(tmp_path / "masks/a.tif", label[None])
    source = GeoTiff("train", str(tmp_path), LABELS, bands=bands, tile=[32, 40], **ONE)
    with rasterio.open(tmp_path / "train/a.tif") as dataset:
        expected = torch.from_numpy(dataset.dataset_mask() == 0)
    assert 0 < expected.sum() < 30
    for index in range(len(source)):
        _, mask = source.read(index)
        top, left = (int(n) for n in source.name(index).split("_")[1:])
        assert torch.equal(mask == 255, expected[top : top + 32, left : left + 40])


def test_a_value_that_can_be_none_tells_in_any_band(tmp_path: Path) -> None:
    image, label = scene(bands=2, dtype="int16")
    image[0, 3, 4] = -9999
    write_raster(tmp_path / "train/a.tif", image, nodata=-9999)
    write_raster(tmp_path / "masks/a.tif", label[None])
    mask = GeoTiff("train", str(tmp_path), LABELS, bands=[1, 2], intensity=[0, 300], **ONE).read(0)[1]
    assert (mask == 255).nonzero().tolist() == [[3, 4]]


def test_plain_images(tmp_path: Path) -> None:
    image, label = scene(bands=3, dtype="uint8")
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"images/{split}/a.png")
        Image.fromarray(label).save(tmp_path / f"masks/{split}/a.png")
    source = GeoTiff("test", str(tmp_path), LABELS, tile=[64, 64], eval_window=64, eval_overlap=0)
    assert (source.split, len(source)) == ("val", 4)
    assert torch.equal(source.read(0)[0], torch.from_numpy(image[:, :64, :64]))
    with pytest.raises(UserError, match="eval_overlap: 64 is more than half of eval_window=96"):
        GeoTiff("val", str(tmp_path), LABELS, eval_window=96, eval_overlap=64)


def test_scenes_are_split_whole(tmp_path: Path) -> None:
    write(tmp_path, count=5)
    parts = {
        split: {
            source.name(i).split("_")[0]
            for source in [GeoTiff(split, str(tmp_path), LABELS, tile=[32, 32], test_fraction=0.2, **PATTERNS)]
            for i in range(len(source))
        }
        for split in ("train", "val", "test")
    }
    assert sorted(len(part) for part in parts.values()) == [1, 1, 3]
    assert len(set.union(*parts.values())) == 5


def _other_crs(root: Path) -> None:
    write_raster(root / "s1_label.tif", scene()[1][None], crs="EPSG:32633")


def _shifted(root: Path) -> None:
    write_raster(root / "s1_label.tif", scene()[1][None], origin=(ORIGIN[0] + 1, ORIGIN[1]))


def _shifted_without_crs(root: Path) -> None:
    write_raster(root / "s1_image.tif", scene(dtype="uint8", seed=1)[0], crs=None)
    write_raster(root / "s1_label.tif", scene()[1][None], crs=None, origin=(ORIGIN[0] + 1, ORIGIN[1]))


def _shifted_where_one_has_no_crs(root: Path) -> None:
    write_raster(root / "s1_label.tif", scene()[1][None], crs=None, origin=(ORIGIN[0] + 1, ORIGIN[1]))


def _shifted_points(root: Path) -> None:
    write_with_points(root / "s1_image.tif", scene(dtype="uint8", seed=1)[0])
    write_with_points(root / "s1_label.tif", scene()[1][None], east=5.0)


def _empty(root: Path) -> None:
    write_raster(root / "s1_image.tif", np.zeros_like(scene()[0]), nodata=0)


def write_with_points(file: Path, values: Array, east: float = 0.0) -> Path:
    """Writes bands [C, h, w] that ground control points place, 0.5 m a pixel."""
    file.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    places = [(0, 0), (0, width), (height, 0), (height, width)]
    points = [GroundControlPoint(r, c, ORIGIN[0] + east + c / 2, ORIGIN[1] - r / 2) for r, c in places]
    with rasterio.open(
        file, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, gcps=points,
        crs="EPSG:32632",
    ) as sink:  # fmt: skip
        sink.write(values)
    return file


def _coarser(root: Path) -> None:
    write_raster(root / "s1_label.tif", scene()[1][None], pixel=0.6)


def _smaller(root: Path) -> None:
    write_raster(root / "s1_label.tif", scene()[1][None, :-10])


def _coloured(root: Path) -> None:
    write_raster(root / "s1_label.tif", scene(dtype="uint8")[0])


def _truncated(root: Path) -> None:
    content = (root / "s1_image.tif").read_bytes()
    (root / "s1_image.tif").write_bytes(content[:3000])


def _text(root: Path) -> None:
    (root / "s1_image.tif").write_text("no raster")


def _few_bands(root: Path) -> None:
    write_raster(root / "s1_image.tif", scene(bands=1, dtype="uint8")[0])


def _deeper(root: Path) -> None:
    write_raster(root / "s1_image.tif", scene()[0])


GALLERY: dict[Callable[[Path], None], tuple[str, str]] = {
    _other_crs: ("s1_label.tif", "is in EPSG:32633 but its image"),
    _shifted: ("s1_label.tif", "lies up to 2 pixels from its image"),
    _shifted_without_crs: ("s1_label.tif", "lies up to 2 pixels from its image"),
    _shifted_where_one_has_no_crs: ("s1_label.tif", "lies up to 2 pixels from its image"),
    _shifted_points: ("s1_label.tif", "(their ground control points differ)"),
    _coarser: ("s1_label.tif", "their transforms differ"),
    _smaller: ("s1_label.tif", "is 90x60 but its image"),
    _coloured: ("s1_label.tif", "has 4 bands"),
    _truncated: ("s1_image.tif", "cannot be read as a raster"),
    _text: ("s1_image.tif", "cannot be read as a raster"),
    _few_bands: ("s1_image.tif", "has 1 bands, and data.dataset.bands asks for 3"),
    _deeper: ("s1_image.tif", "its bands are uint16 but those of"),
}


@pytest.mark.parametrize("spoil", GALLERY)
def test_bad_rasters_are_named(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(write(tmp_path))
    file, reason = GALLERY[spoil]

    def read() -> None:
        source = GeoTiff("train", str(tmp_path), LABELS, val=["s3"], **PATTERNS)
        for index in range(len(source)):
            source.read(index)

    with pytest.raises(UserError) as caught:
        read()
    assert str(tmp_path / file) in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_points_that_are_the_images_are_one_grid(tmp_path: Path) -> None:
    write(tmp_path)
    write_with_points(tmp_path / "s1_image.tif", scene(dtype="uint8", seed=1)[0])
    write_with_points(tmp_path / "s1_label.tif", scene()[1][None])
    assert len(GeoTiff("train", str(tmp_path), LABELS, **PATTERNS)) == 3


def test_an_intensity_range_is_suggested_of_what_is_data(tmp_path: Path) -> None:
    write(tmp_path, dtype="uint16")
    image, _ = scene(dtype="uint16")
    image += 1000
    image[:, :40] = 0
    write_raster(tmp_path / "s0_image.tif", image, nodata=0)
    with pytest.raises(UserError, match=r"data\.dataset\.intensity=\[10\d\d,12\d\d\]"):
        GeoTiff("train", str(tmp_path), LABELS, val=["s1"], **PATTERNS)


def test_a_scene_without_any_data_is_named(tmp_path: Path) -> None:
    _empty(write(tmp_path, dtype="uint16"))
    with pytest.raises(UserError, match=r"s1_image\.tif: has no pixel with data"):
        GeoTiff("train", str(tmp_path), LABELS, val=["s0"], **PATTERNS)


@pytest.mark.parametrize(("dtype", "reason"), [("uint16", "values of uint16"), ("int16", "values of int16")])
def test_splits_are_of_one_kind(tmp_path: Path, dtype: str, reason: str) -> None:
    for split, kind in (("train", "uint8" if dtype == "uint16" else "uint16"), ("val", dtype)):
        image, label = scene(dtype=kind)
        write_raster(tmp_path / f"images/{split}/a.tif", image)
        write_raster(tmp_path / f"masks/{split}/a.tif", label[None])
    made = functools.partial(GeoTiff, labels=LABELS, intensity=[0, 300], bands=[1, 2, 3])
    with pytest.raises(UserError, match=rf"the split 'val' has {reason} but the split 'train' has"):
        SegmentationDataModule(made, root=str(tmp_path), crop=[16, 16], batch_size=1).prepare()


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[geo\]"'):
        GeoTiff("train", str(tmp_path), LABELS)


def overrides(root: Path) -> list[str]:
    return [
        "network=tiny", "trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "data=geotiff",
        f"data.root={root}", "data.dataset.labels={building: 1, water: [2, 3]}", "data.num_workers=0",
        "data.batch_size=4", "data.crop=[16,16]", "data.dataset.images=*_image.tif", "data.dataset.masks=*_label.tif",
        "data.dataset.tile=[32,32]", "data.dataset.bands=[4,1]", "data.dataset.intensity=[0,300]",
    ]  # fmt: skip


def test_a_run(tmp_path: Path) -> None:
    write(tmp_path, dtype="uint16")
    outcome = train(settings(tmp_path / "run", *overrides(tmp_path), small=False))
    assert outcome.status == "completed"
    assert (outcome.model.channels, outcome.model.intensity) == (2, (0, 300))
