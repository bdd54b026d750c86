"""Outlines drawn again are the mask, by whoever's reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from src.data.formats import labelme
from src.data.formats.painting import paint
from src.data.labels import LabelSet
from src.errors import UserError
from src.inference.coco_files import merge, run_lengths
from src.inference.vectors import regions, save_map_vectors, save_vectors
from src.inference.writing import Writing

LABELS = LabelSet(("ground", "house", "tree"), ((1, 2, 3), (200, 0, 0), (0, 200, 16)))


def mask() -> npt.NDArray[np.uint8]:
    """With holes in holes, a region in a corner, and pixels that touch by corners only."""
    found = np.zeros((23, 31), np.uint8)
    found[3:18, 4:20] = 1
    found[6:14, 7:15] = 2
    found[8:11, 9:12] = 0
    found[9, 10] = 1
    found[20, 25] = found[21, 26] = 2
    found[0, 30] = 1
    return found


def written(folder: Path, *forms: str, name: str = "a") -> Writing:
    writing = Writing(folder=folder / "out", vectors=forms)  # type: ignore[arg-type]
    Image.fromarray(np.zeros((23, 31, 3), np.uint8)).save(folder / f"{name}.png")
    save_vectors(mask(), LABELS, name, folder / f"{name}.png", writing)
    return writing


@pytest.mark.parametrize("form", ["coco", "coco_rle"])
def test_coco_is_read_by_pycocotools(tmp_path: Path, form: str) -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    pytest.importorskip("rasterio")
    for name in "ab":
        written(tmp_path, form, name=name)
    merge((tmp_path / f"out/{form}/{name}.json" for name in "abc"), tmp_path / "all.json")
    coco = coco_module.COCO(str(tmp_path / "all.json"))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.png", "b.png"]
    for image in coco.getImgIds():
        found = np.full((23, 31), 99, np.uint8)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image]))
        for annotation in annotations:
            of_it = coco.annToMask(annotation).astype(bool)
            assert (found[of_it] == 99).all()
            found[of_it] = annotation["category_id"] - 1
            assert annotation["area"] == of_it.sum()
            rows, columns = np.nonzero(of_it)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        assert np.array_equal(found, mask())
        assert (len(annotations) == 3) == (form == "coco_rle")
    assert {category["name"] for category in coco.loadCats(coco.getCatIds())} == set(LABELS.names)


@pytest.mark.parametrize("seed", range(8))
def test_runs_are_those_of_pycocotools(seed: int) -> None:
    coding = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    whole = np.zeros((7, 12), bool)
    left, width = int(rng.integers(0, 6)), int(rng.integers(1, 6))
    whole[:, left : left + width] = rng.random((7, width)) < rng.choice([0.1, 0.5, 1.0])
    expected = coding.encode(np.asfortranarray(whole.astype(np.uint8)))
    for counts in (run_lengths(whole), run_lengths(whole[:, left : left + width], left, 12)):
        assert coding.frPyObjects({"size": [7, 12], "counts": counts}, 7, 12) == expected


def test_labelme_is_read_by_our_own_reader(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    written(tmp_path, "labelme")
    (photo,) = labelme.photos(tmp_path)
    assert photo.image.resolve() == tmp_path / "a.png"
    painted = np.full((23, 31), 9, np.uint8)
    for shape in photo.shapes(23, 31):
        paint(painted, shape, LABELS.names.index(shape.label))
    assert np.array_equal(painted, mask())


def test_geojson_of_a_photo_is_in_pixels(tmp_path: Path) -> None:
    features = pytest.importorskip("rasterio.features")
    written(tmp_path, "geojson")
    content = json.loads((tmp_path / "out/geojson/a.geojson").read_text())
    shapes = [(feature["geometry"], feature["properties"]["class"]) for feature in content["features"]]
    assert np.array_equal(features.rasterize(shapes, (23, 31), fill=9), mask())
    assert {(f["properties"]["name"], f["properties"]["color"]) for f in content["features"]} == {
        ("ground", "#010203"), ("house", "#c80000"), ("tree", "#00c810"),
    }  # fmt: skip


def test_a_map_keeps_its_place(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    raw = pytest.importorskip("pyogrio.raw")
    place = rasterio.transform.from_origin(500_000, 5_500_000, 10, 10)
    values = mask()
    values[:2] = 255
    with rasterio.open(
        tmp_path / "m.tif", "w", driver="GTiff", height=23, width=31, count=1, dtype="uint8", crs="EPSG:32632", transform=place
    ) as sink:  # fmt: skip
        sink.write(values, 1)
    save_map_vectors(tmp_path / "m.tif", LABELS, "m", Writing(folder=tmp_path, vectors=("gpkg", "geojson")))
    about, _, shapes, (numbers, names, _) = raw.read(str(tmp_path / "gpkg/m.gpkg"))
    assert about["crs"] == "EPSG:32632"
    found = list(regions(values, 3))
    assert numbers.tolist() == [region.number for region in found]
    assert [LABELS.names[number] for number in numbers] == names.tolist()
    first = np.frombuffer(shapes[0], "<f8", offset=13, count=2)
    x, y = found[0].rings[0][0]
    assert first.tolist() == [500_000 + 10 * x, 5_500_000 - 10 * y]
    content = json.loads((tmp_path / "geojson/m.geojson").read_text())
    longitude, latitude = content["features"][0]["geometry"]["coordinates"][0][0]
    assert (round(longitude, 2), round(latitude, 2)) == (9.0, 49.65)


def test_a_form_that_is_none_of_photos(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"is a photo, of which vectors=gpkg is not written; take vectors=\[geojson,coco"
    ):
        written(tmp_path, "gpkg")
