"""Your own data in other arrangements: colours, class files, patterns, lists, drawn splits."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.data.formats.folder import Folder
from src.errors import UserError
from tests.data.layouts import SIZE, index_png, photo, rows

NAMES = ["land", "water", "road"]
COLORS = [[200, 100, 0], [0, 0, 255], [90, 90, 90]]
HEX = ["#c86400", "#0000FF", "#5a5a5a"]


def colored(root: Path, mode: str = "RGB", split: str = "train", name: str = "a") -> Path:
    """One image whose mask has rows of land, water, road and white, in colours."""
    photo(root / f"images/{split}/{name}.png")
    shades = np.array([*COLORS, [255, 255, 255]], np.uint8)
    image = Image.fromarray(shades[rows(0, 1, 2, 3)])
    if mode == "P":  # the palette in an order of its own
        image = Image.fromarray(rows(3, 0, 1, 2).astype(np.uint8))
        image.putpalette([c for k in (1, 2, 3, 0) for c in shades[k].tolist()])
    file = root / f"masks/{split}/{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    (image if mode in ("RGB", "P") else image.convert(mode)).save(file)
    return root


def classes_of(folder: Folder, index: int = 0) -> list[int]:
    values: list[int] = folder.read(index)[1][:4, 0].tolist()
    return values


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_masks_by_colour(tmp_path: Path, mode: str) -> None:
    colored(tmp_path, mode)
    options: dict[str, Any] = {"colors": COLORS, "ignore_colors": [[255, 255, 255]]}
    assert classes_of(Folder("train", str(tmp_path), NAMES, mask_format="rgb", **options)) == [0, 1, 2, 255]
    if mode != "P":
        assert classes_of(Folder("train", str(tmp_path), NAMES, **options)) == [0, 1, 2, 255]


def test_a_palette_that_contradicts_the_colours_is_no_matter_of_taste(tmp_path: Path) -> None:
    colored(tmp_path, "P")
    folder = Folder("train", str(tmp_path), NAMES, COLORS)
    with pytest.raises(
        UserError, match=r"a\.png: its palette shows value 0 in the colour of water, but class 0 is land"
    ):
        folder.read(0)
    assert classes_of(Folder("train", str(tmp_path), [*NAMES, "snow"], mask_format="index")) == [3, 0, 1, 2]


def test_an_unknown_colour_is_named_with_its_place(tmp_path: Path) -> None:
    folder = Folder("train", str(colored(tmp_path)), NAMES, COLORS)
    with pytest.raises(UserError) as caught:
        folder.read(0)
    said = str(caught.value)
    assert f"{tmp_path}/masks/train/a.png: colour 255,255,255 at 192 pixels (first in row 3, column 0)" in said
    assert "data.dataset.ignore_colors" in said
    assert "\n" not in said


def test_one_colour_for_two_things(tmp_path: Path) -> None:
    colored(tmp_path)
    with pytest.raises(UserError, match="stands for land and for ignored pixels"):
        Folder("train", str(tmp_path), NAMES, COLORS, ignore_colors=[COLORS[0]])


def test_rgb_needs_colours(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.dataset\.mask_format: rgb needs the classes' colours"):
        Folder("train", str(colored(tmp_path)), NAMES, mask_format="rgb")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.yaml", "".join(f"- {{name: {n}, color: {c}}}\n" for n, c in zip(NAMES, COLORS, strict=True))),
        ("classes.json", json.dumps({"classes": [{"title": n, "color": c} for n, c in zip(NAMES, HEX, strict=True)]})),
    ],
)  # fmt: skip
def test_a_file_of_classes(tmp_path: Path, file: str, text: str) -> None:
    (colored(tmp_path) / file).write_text(text)
    folder = Folder("train", str(tmp_path), ignore_colors=[[255, 255, 255]])
    assert folder.label_set.names == tuple(NAMES)
    assert folder.label_set.colors == tuple(map(tuple, COLORS))
    assert classes_of(folder) == [0, 1, 2, 255]


def test_names_alone_in_the_file_of_classes(tmp_path: Path) -> None:
    (colored(tmp_path, "P") / "classes.yaml").write_text("[a, b, c, d]")
    assert classes_of(Folder("train", str(tmp_path))) == [3, 0, 1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {name: a, color: [1, 2]}", "is no list of classes"),
        ("classes: 3", "is no list of classes"),
        ("- {name: [", "is no list of classes"),
        ("", "names no class"),
        ("- {name: a, color: '#ffffff'}\n- b", "class b has no color"),
    ],
)
def test_a_bad_file_of_classes(tmp_path: Path, text: str, said: str) -> None:
    (colored(tmp_path) / "classes.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        Folder("train", str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path}/classes.yaml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.dataset\.names: must be given"):
        Folder("train", str(colored(tmp_path)))


def scenes(root: Path, scenes: int = 10, frames: int = 4) -> Path:
    for scene in range(scenes):
        for frame in range(frames):
            photo(root / f"images/scene{scene}_{frame}.jpg")
            index_png(root / f"masks/scene{scene}_{frame}.tif", rows(0, 1, 2))
    return root


def names_of(folder: Folder) -> list[str]:
    return [folder.name(i) for i in range(len(folder))]


ONE_FOLDER: dict[str, Any] = {"images": "images", "masks": "masks"}


def test_drawn_splits_are_whole_and_apart(tmp_path: Path) -> None:
    scenes(tmp_path)
    options: dict[str, Any] = {**ONE_FOLDER, "val_fraction": 0.2, "test_fraction": 0.1}
    train, val, test = (Folder(s, str(tmp_path), NAMES, **options) for s in ("train", "val", "test"))
    assert [len(train), len(val), len(test)] == [28, 8, 4]
    assert [f.split for f in (train, val, test)] == ["train", "val", "test"]
    assert len({*names_of(train), *names_of(val), *names_of(test)}) == 40
    assert names_of(val) == names_of(Folder("val", str(tmp_path), NAMES, **options))
    assert names_of(val) != names_of(Folder("val", str(tmp_path), NAMES, **options, split_seed=1))
    assert classes_of(train)[:3] == [0, 1, 2]


def test_frames_of_a_scene_stay_together(tmp_path: Path) -> None:
    scenes(tmp_path)
    options: dict[str, Any] = {**ONE_FOLDER, "val_fraction": 0.2, "test_fraction": 0.2, "group": r"^(.*)_\d+"}
    folders = [Folder(split, str(tmp_path), NAMES, **options) for split in ("train", "val", "test")]
    groups = [{name.partition("_")[0] for name in names_of(folder)} for folder in folders]
    assert [len(g) for g in groups] == [6, 2, 2]
    assert len(set.union(*groups)) == 10


def test_val_is_drawn_from_train_where_only_test_has_a_folder(tmp_path: Path) -> None:
    for split, count in (("train", 10), ("test", 3)):
        for i in range(count):
            colored(tmp_path, split=split, name=f"{i}")
    options: dict[str, Any] = {"colors": COLORS, "ignore_colors": [[255, 255, 255]], "val_fraction": 0.2}
    sizes = {s: len(Folder(s, str(tmp_path), NAMES, **options)) for s in ("train", "val", "test")}
    assert sizes == {"train": 8, "val": 2, "test": 3}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "leave nothing to train with"),
        ({"val_fraction": 0.2, "group": "("}, "is no regular expression"),
        ({"val_fraction": 0.2, "group": "^town"}, "does not fit the name 'scene0_0'"),
        (
            {"val_fraction": 0.2, "group": "^scene"},
            "of 40 images in 1 groups none is left for the split 'val'; take smaller groups, or give each",
        ),
        ({"group": "^scene"}, "data.dataset.group: keeps images together"),
        ({}, "data.dataset.images: train and val would be the same images"),
    ],
)
def test_what_cannot_be_drawn(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    scenes(tmp_path)
    with pytest.raises(UserError) as caught:
        Folder("val", str(tmp_path), NAMES, **ONE_FOLDER, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_patterns_pair_by_what_their_wildcards_stand_for(tmp_path: Path) -> None:
    for town in ("1", "2", "3"):
        for name in ("a", "b"):
            photo(tmp_path / f"Town {town}/photos/{name}.jpg", size=SIZE)
            index_png(tmp_path / f"Town {town}/labels/{name}_mask.png", rows(int(town) - 1))
    options: dict[str, Any] = {
        "images": {"train": "Town [1-2]/photos/*.jpg", "val": "Town [3]/photos/*.jpg"},
        "masks": {"train": "Town [1-2]/labels/*_mask.png", "val": "Town [3]/labels/*_mask.png"},
    }
    train, val, test = (Folder(s, str(tmp_path), NAMES, **options) for s in ("train", "val", "test"))
    assert names_of(train) == ["1/a", "1/b", "2/a", "2/b"]
    assert [classes_of(train, i)[0] for i in range(4)] == [0, 0, 1, 1]
    assert (names_of(val), test.split) == (["3/a", "3/b"], "val")
    (tmp_path / "Town 2/labels/a_mask.png").unlink()
    with pytest.raises(UserError, match=r"Town 2/photos/a\.jpg: image without mask; a file for '2/a' in"):
        Folder("train", str(tmp_path), NAMES, **options)


def test_patterns_of_any_depth(tmp_path: Path) -> None:
    photo(tmp_path / "in/x/y/a.png")
    index_png(tmp_path / "out/x/y/a.png", rows(0))
    folder = Folder("train", str(tmp_path), NAMES, images="in/**/*.png", masks="out/**/*.png")
    assert names_of(folder) == ["x/y/a"]


def test_lists(tmp_path: Path) -> None:
    scenes(tmp_path, 2, 3)
    photo(tmp_path / "my photos/one more.png")
    pairs = "my photos/one more.png masks/scene0_0.tif\nimages/scene0_2.jpg,masks/scene0_2.tif\n"
    (tmp_path / "train.txt").write_text(f"# names or pairs\n\nscene1_2\nscene0_1.jpg\n{pairs}")
    (tmp_path / "val.txt").write_text("scene1_0\n")
    options: dict[str, Any] = {**ONE_FOLDER, "lists": "{split}.txt"}
    train, val, test = (Folder(s, str(tmp_path), NAMES, **options) for s in ("train", "val", "test"))
    assert names_of(train) == ["scene1_2", "scene0_1", "my photos/one more", "images/scene0_2"]
    assert (names_of(val), test.split) == (["scene1_0"], "val")
    for i in range(4):
        assert classes_of(train, i)[:3] == [0, 1, 2]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_as_people_write_them(tmp_path: Path, end: str, coding: str) -> None:
    scenes(tmp_path, 1, 3)
    narrow = "shot 3.14\u202fPM, (ü)"
    photo(tmp_path / f"images/{narrow}.png")
    index_png(tmp_path / f"masks/{narrow}.png", rows(0))
    photo(tmp_path / "images/sub/deep.png")
    index_png(tmp_path / "masks/sub/deep.png", rows(0))
    lines = [
        "images\\scene0_0.jpg masks\\scene0_0.tif", '"images\\scene0_1.jpg","masks\\scene0_1.tif"', ".\\scene0_2.jpg  ", "",
        f"images/{narrow}.png;masks/{narrow}.png", "./images/sub/deep.png\tmasks\\sub\\deep.png",
    ]  # fmt: skip
    (tmp_path / "train.txt").write_bytes((end.join(lines) + end).encode(coding))
    folder = Folder("train", str(tmp_path), NAMES, **ONE_FOLDER, lists="{split}.txt")
    assert names_of(folder)[:3] == ["images/scene0_0", "images/scene0_1", "scene0_2"]
    assert names_of(folder)[3] == f"images/{narrow}" and len(folder) == 5
    for i in range(5):
        folder.read(i)


def test_a_backslash_in_a_files_own_name_is_one(tmp_path: Path) -> None:
    photo(tmp_path / "images/a\\b.png")
    index_png(tmp_path / "masks/a\\b.png", rows(0))
    (tmp_path / "train.txt").write_text("images/a\\b.png masks/a\\b.png\n")
    assert len(Folder("train", str(tmp_path), NAMES, **ONE_FOLDER, lists="{split}.txt")) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scene0_0\nscene9_9", "line 2: there is no image 'scene9_9'"),
        ("scene0_0\nscene0_0", "line 2: scene0_0 is listed before"),
        ("images/scene0_0.jpg masks/none.tif", "line 1: there is no file"),
        ("\n# nothing\n", "lists no image"),
        (None, "the list cannot be read"),
    ],
)
def test_bad_lists(tmp_path: Path, text: str | None, said: str) -> None:
    scenes(tmp_path, 1, 2)
    if text is not None:
        (tmp_path / "train.txt").write_text(text)
    with pytest.raises(UserError) as caught:
        Folder("train", str(tmp_path), NAMES, **ONE_FOLDER, lists="{split}.txt")
    assert str(tmp_path / "train.txt") in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_accents_written_in_two_ways_are_one_name(tmp_path: Path) -> None:
    photo(tmp_path / "images/train" / (unicodedata.normalize("NFC", "Süd") + ".png"))
    index_png(tmp_path / "masks/train" / (unicodedata.normalize("NFD", "Süd") + ".png"), rows(0))
    folder = Folder("train", str(tmp_path), NAMES)
    assert names_of(folder) == [unicodedata.normalize("NFC", "Süd")]
    folder.read(0)
