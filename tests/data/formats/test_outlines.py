"""Labelling tools' own files: shapes become masks, whoever drew them; nonsense is named."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from src.cli.command import compose
from src.data.formats.folder import Folder
from src.data.formats.labelstudio import brush
from src.data.formats.outlines import Outlines
from src.errors import UserError
from tests.data.layouts import SIZE, photo

BOX = [[4, 2], [20, 2], [20, 12], [4, 12]]  # x, y
INSIDE = np.zeros(SIZE, bool)
INSIDE[2:13, 4:21] = True
CORNER = np.zeros(SIZE, bool)
CORNER[:3, :5] = True


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def packed(mask: npt.NDArray[np.bool_]) -> str:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return base64.b64encode(zlib.compress(stream.getvalue())).decode()


def coded(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Label Studio's code of a mask: the first row as values, the rest as runs of 8 bits' length."""
    values = np.repeat(mask.reshape(-1), 4).astype(int) * 255
    bits = f"{len(values):032b}{7:05b}" + f"{7:04b}" * 4
    first = SIZE[1] * 4
    bits += f"0{0:02b}{first - 1:08b}" + "".join(f"{value:08b}" for value in values[:first])
    at = first
    while at < len(values):
        end = at + 1
        while end < len(values) and values[end] == values[at] and end - at < 256:
            end += 1
        bits += f"1{0:02b}{end - at - 1:08b}{values[at]:08b}"
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def labelme(root: Path, shapes: list[dict[str, Any]]) -> None:
    for i in range(5):
        photo(root / f"{i}.jpg", i)
        write(root / f"{i}.json", {"shapes": shapes, "imagePath": f"..\\{i}.jpg", "imageHeight": SIZE[0],
                                   "imageWidth": SIZE[1], "imageData": None})  # fmt: skip


def drawn_labelme(root: Path) -> None:
    png = io.BytesIO()
    Image.fromarray(CORNER[:3, :5]).save(png, "PNG")
    labelme(root, [
        {"label": "road", "points": BOX, "shape_type": "polygon"},
        {"label": "car", "points": [[0, 0], [4, 2]], "shape_type": "mask", "mask": base64.b64encode(png.getvalue()).decode()},
        {"label": "spot", "points": [[1, 1]], "shape_type": "point"},
    ])  # fmt: skip


def drawn_labelstudio(root: Path) -> None:
    tasks = []
    for i in range(5):
        photo(root / f"images/{i}.jpg", i)
        size = {"original_height": SIZE[0], "original_width": SIZE[1]}
        outline = [[100 * x / SIZE[1], 100 * y / SIZE[0]] for x, y in BOX]
        result = [
            {**size, "type": "polygonlabels", "value": {"points": outline, "polygonlabels": ["road"]}},
            {**size, "type": "brushlabels", "value": {"format": "rle", "rle": coded(CORNER), "brushlabels": ["car"]}},
            {"type": "choices", "value": {"choices": ["good"]}},
        ]
        tasks.append(
            {"id": i, "data": {"image": f"/data/upload/1/0123abcd-{i}.jpg"}, "annotations": [{"result": result}]}
        )
    write(root / "project-1.json", [*tasks, {"id": 9, "data": {"image": "unlabelled.jpg"}, "annotations": []}])


def drawn_supervisely(root: Path) -> None:
    write(root / "meta.json", {"classes": [{"title": "road"}, {"title": "car"}]})
    for i in range(5):
        photo(root / f"first/img/{i}.jpg", i)
        outline = {"exterior": BOX, "interior": []}
        objects = [
            {"classTitle": "road", "geometryType": "polygon", "points": outline},
            {
                "classTitle": "car",
                "geometryType": "bitmap",
                "bitmap": {"data": packed(CORNER[:3, :5]), "origin": [0, 0]},
            },
        ]
        write(root / f"first/ann/{i}.jpg.json", {"size": {"height": SIZE[0], "width": SIZE[1]}, "objects": objects})


def drawn_via(root: Path) -> None:
    entries = {}
    for i in range(5):
        photo(root / f"{i}.jpg", i)
        xs, ys = zip(*BOX, strict=True)
        regions = [
            {"shape_attributes": {"name": "polygon", "all_points_x": xs, "all_points_y": ys},
             "region_attributes": {"class": "road"}},
            {"shape_attributes": {"name": "rect", "x": 0, "y": 0, "width": 4, "height": 2},
             "region_attributes": {"class": {"car": True, "bus": False}}},
        ]  # fmt: skip
        entries[f"{i}.jpg123"] = {"filename": f"{i}.jpg", "size": 123, "regions": regions}
    write(root / "via_region_data.json", entries)


TOOLS: dict[str, Callable[[Path], None]] = {
    "labelme": drawn_labelme,
    "labelstudio": drawn_labelstudio,
    "supervisely": drawn_supervisely,
    "via": drawn_via,
}


@pytest.mark.parametrize("tool", TOOLS)
def test_shapes_become_a_mask(tmp_path: Path, tool: Any) -> None:
    TOOLS[tool](tmp_path)
    train, val = Outlines("train", str(tmp_path), tool), Outlines("val", str(tmp_path), tool)
    assert train.label_set.names == val.label_set.names == ("background", "car", "road")
    assert (len(train), len(val), Outlines("test", str(tmp_path), tool).split) == (4, 1, "val")
    assert not {train.name(i) for i in range(4)} & {val.name(0)}
    image, mask = train.read(0)
    assert image.shape == (3, *SIZE)
    expected = np.where(CORNER, 1, np.where(INSIDE, 2, 0))
    assert np.array_equal(mask.numpy(), expected)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_config_group_and_the_hint_of_data_folder(tmp_path: Path, tool: str) -> None:
    from src.data.formats.folder import Folder
    from src.training.build import build_data

    TOOLS[tool](tmp_path)
    chosen = compose("inspect", [f"data={tool}", f"data.root={tmp_path}", "data.crop=[16,16]", "data.batch_size=2"])
    data = build_data(chosen["data"], seed=0)
    data.prepare(("train", "val"))
    with pytest.raises(UserError, match=rf"take data={tool}$"):
        Folder("train", str(tmp_path), ["a", "b"])


@pytest.mark.parametrize("tool", TOOLS)
def test_chosen_labels(tmp_path: Path, tool: Any) -> None:
    TOOLS[tool](tmp_path)
    with pytest.raises(UserError, match=r"data\.dataset\.names: the files have the label 'car' too"):
        Outlines("train", str(tmp_path), tool, names=["road"])
    for others, value in (("background", {0, 1}), ("ignore", {0, 1, 255})):
        source = Outlines("train", str(tmp_path), tool, names=["road"], others=others)  # type: ignore[arg-type]
        assert set(source.read(0)[1].unique().tolist()) == value


def test_folders_are_splits(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        drawn_labelme(tmp_path / split)
    sources = [Outlines(split, str(tmp_path), "labelme") for split in ("train", "val", "test")]
    assert [(source.split, len(source), source.name(0)) for source in sources] == [
        ("train", 5, "train/0"), ("val", 5, "valid/0"), ("test", 5, "test/0")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "points", "pixels"),
    [
        ("rectangle", [[20, 12], [4, 2]], INSIDE.sum()),
        ("circle", [[16, 12], [16, 17]], 3.1416 * 5.5**2),
        ("linestrip", [[2, 2], [12, 2]], 11),
        ("line", [[2, 2], [2, 12]], 11),
    ],
)
def test_shapes_of_labelme(tmp_path: Path, kind: str, points: Any, pixels: float) -> None:
    labelme(tmp_path, [{"label": "a", "points": points, "shape_type": kind}])
    mask = Outlines("train", str(tmp_path), "labelme").read(0)[1]
    assert abs(int((mask == 1).sum()) - pixels) <= 0.08 * pixels


def test_the_last_shape_is_on_top_and_names_with_a_meaning(tmp_path: Path) -> None:
    labelme(tmp_path, [
        {"label": "a", "points": BOX, "shape_type": "polygon"},
        {"label": "_background_", "points": [[4, 2], [20, 4]], "shape_type": "rectangle"},
        {"label": "__ignore__", "points": [[4, 8], [20, 10]], "shape_type": "rectangle"},
    ])  # fmt: skip
    source = Outlines("train", str(tmp_path), "labelme")
    assert source.label_set.names == ("background", "a")
    assert source.read(0)[1][[3, 6, 9], 10].tolist() == [0, 1, 255]


def test_a_hole_is_no_part(tmp_path: Path) -> None:
    drawn_supervisely(tmp_path)
    hole = [[8, 4], [16, 4], [16, 10], [8, 10]]
    for file in (tmp_path / "first/ann").iterdir():
        content = json.loads(file.read_text())
        content["objects"][0]["points"]["interior"] = [hole]
        write(file, content)
    mask = Outlines("train", str(tmp_path), "supervisely").read(0)[1]
    assert mask[7, [6, 12, 18]].tolist() == [2, 0, 2]


BRUSH = "task-1-annotation-2-by-me@home-tag-crack-0.png"


@pytest.mark.parametrize("folder", ["", "masks", "masks/train"])
def test_brush_strokes_as_pictures_name_no_photo(tmp_path: Path, folder: str) -> None:
    for name in ("images/train/a.png", "images/val/a.png", str(Path(folder, BRUSH))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name)
    with pytest.raises(UserError, match=r"task-1-annotation-2.*export JSON.*data=labelstudio"):
        Folder("train", str(tmp_path), names=["road", "crack"])
    if not folder:
        with pytest.raises(UserError, match="export JSON"):
            Outlines("train", str(tmp_path), "labelstudio")


def test_brush_code_of_nonsense() -> None:
    good = coded(CORNER)
    assert np.array_equal(brush(good, *SIZE), CORNER)
    for code, said in (
        (good[:20], "ends early"),
        (good, "is of 3,072 values, not of"),
        ([*good[:4], 300], "no list of bytes"),
        ("x", "no list of bytes"),
    ):
        with pytest.raises(ValueError, match=said):
            brush(code, SIZE[0] + (said.startswith("is of")), SIZE[1])


def bomb(_: Path) -> dict[str, Any]:
    data = base64.b64encode(zlib.compress(bytes(1 << 27))).decode()
    return {"classTitle": "car", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [0, 0]}}


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"label": "a", "points": [[0, 0], [float("nan"), 1], [2, 2]], "shape_type": "polygon"}, "lies in no photo"),
        ({"label": "a", "points": [[0, 0], [1e9, 1], [2, 2]], "shape_type": "polygon"}, "lies in no photo"),
        ({"label": "a", "points": [[0, 0], [2, 2]], "shape_type": "polygon"}, "it has 2 points"),
        ({"label": "a", "points": [[0, 0], ["x", 2], [3, 3]], "shape_type": "polygon"}, "'x' is no number"),
        ({"label": "a", "points": 3, "shape_type": "polygon"}, "no list"),
        ({"label": "a", "shape_type": "polygon"}, "'points' is missing"),
        ({"label": "a", "points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": "AAAA"}, "cannot identify"),
        ({"label": "a", "points": BOX, "shape_type": "spline"}, "of the kind 'spline' cannot be painted"),
    ],
)
def test_nonsense_is_named(tmp_path: Path, spoilt: dict[str, Any], said: str) -> None:
    labelme(tmp_path, [spoilt])
    source = Outlines("train", str(tmp_path), "labelme")
    with pytest.raises(UserError) as caught:
        source.read(0)
    assert str(tmp_path / "0.json") in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bitmap_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    drawn_supervisely(tmp_path)
    for file in (tmp_path / "first/ann").iterdir():
        write(file, {**json.loads(file.read_text()), "objects": [bomb(file)]})
    with pytest.raises(UserError, match="unpacks to more than any photo's"):
        Outlines("train", str(tmp_path), "supervisely").read(0)


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_missing(tmp_path: Path, tool: Any) -> None:
    with pytest.raises(UserError, match=rf"has no annotation files of {tool} \(nothing is there\)"):
        Outlines("train", str(tmp_path), tool)
    TOOLS[tool](tmp_path)
    next(tmp_path.rglob("3.jpg")).unlink()
    with pytest.raises(UserError, match=r"is of '.*3\.jpg', but no photo has this name"):
        Outlines("train", str(tmp_path), tool)
