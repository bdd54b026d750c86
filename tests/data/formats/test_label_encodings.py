"""Masks as tools write them: other values, other roots, JPEG; and masks from which nothing could be learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src import inspect
from src.cli.command import compose
from src.config.class_values import classes_by_name
from src.data.formats.folder import Folder
from src.errors import UserError
from src.training.build import build_data
from tests.data.layouts import SIZE, index_png, photo, rows

NAMES = ["a", "b", "c"]


def masks_of(root: Path, *values: int, splits: tuple[str, ...] = ("train", "val"), count: int = 3) -> Path:
    for split in splits:
        for i in range(count):
            photo(root / f"images/{split}/{i}.jpg", i)
            index_png(root / f"masks/{split}/{i}.png", rows(*values))
    return root


def first(folder: Folder) -> list[int]:
    values: list[int] = folder.read(0)[1][:4, 0].tolist()
    return values


class TestValues:
    def test_are_classes(self, tmp_path: Path) -> None:
        masks_of(tmp_path, 0, 128, 255, 7)
        folder = Folder("train", str(tmp_path), values={"sky": 128, "land": [0, 7], "sea": 255})
        assert folder.label_set.names == ("sky", "land", "sea")
        assert first(folder) == [1, 0, 2, 1]
        folder = Folder("train", str(tmp_path), ["land", "sky"], values={"sky": 128, "land": 0}, ignore=[7])
        assert first(folder) == [0, 1, 255, 255]

    def test_that_count_from_1(self, tmp_path: Path) -> None:
        masks_of(tmp_path, 0, 1, 3, 255)
        assert first(Folder("train", str(tmp_path), NAMES, reduce_zero_label=True)) == [255, 0, 2, 255]
        with pytest.raises(
            UserError, match=r"ignore: 0 is the value of class a.*reduce_zero_label=true, .*\{a: 1, b: 2, c: 3\}"
        ):
            Folder("train", str(tmp_path), NAMES, ignore=[0])

    def test_that_are_no_class_are_named_with_what_to_write(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as caught:
            Folder("train", str(masks_of(tmp_path, 0, 128, 255)), NAMES).read(0)
        assert "label 128 is out of range; 3 classes are 0 to 2, and the file has 0, 128, 255" in str(caught.value)
        assert "data.dataset.values={0: NAME, 128: NAME, 255: NAME}" in str(caught.value)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"values": {"a": 1, "b": 1}}, "the value 1 is 'a' and 'b'"),
            ({"values": {"a": 1, "b": 70000}}, "'b' has the value 70000"),
            ({"values": {"a": 1, "b": 2}, "names": NAMES}, "says nothing of class 'c'"),
            ({"values": {"a": 1, "b": 2, "x": 3}, "names": ["a", "b"]}, "'x' is no class of data.dataset.names"),
            ({"values": {"a": 1, "b": 2}, "reduce_zero_label": True}, "leave one out"),
        ],
    )
    def test_that_contradict(self, tmp_path: Path, options: dict[str, Any], said: str) -> None:
        with pytest.raises(UserError, match=said):
            Folder("train", str(masks_of(tmp_path, 0, 1)), **options)

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("data.dataset.values={0: background, 255: crack}", "data.dataset.values={background: 0,crack: 255}"),
            ("data.dataset.values={1: a,2:b, 3: a}", "data.dataset.values={a: [1,3],b: 2}"),
            ("data.dataset.names={0: a, 1: b}", "data.dataset.names=[a,b]"),
            ("data.dataset.names={0: a, 255: b}", "data.dataset.values={a: 0,b: 255}"),
            ("data.dataset.values={a: 0, b: 255}", "data.dataset.values={a: 0, b: 255}"),
            ("data.dataset.values={a: [0, 1], b: 255}", "data.dataset.values={a: [0, 1], b: 255}"),
            ("data.dataset.values={5: 7}", "data.dataset.values={5: 7}"),
            ("data.dataset.names=[a,b]", "data.dataset.names=[a,b]"),
        ],
    )
    def test_on_the_command_line(self, typed: str, meant: str) -> None:
        assert classes_by_name(typed) == meant

    def test_reach_the_data_set(self, tmp_path: Path) -> None:
        root = masks_of(tmp_path, 0, 255)
        config = compose(
            "inspect", ["data=folder", f"data.root={root}", "data.dataset.values={0: background, 255: crack}"]
        )
        inspect.Inspection.of(config)
        assert build_data(config["data"], seed=0).source("train").read(0)[1].unique().tolist() == [0, 1]


def test_one_name_gets_a_background(tmp_path: Path) -> None:
    folder = Folder("train", str(masks_of(tmp_path, 0, 1)), ["crack"])
    assert folder.label_set.names == ("background", "crack")
    assert first(folder)[:2] == [0, 1]
    assert first(Folder("train", str(tmp_path), values={"crack": 1}))[:2] == [0, 1]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_gray_masks_written_as_rgb(tmp_path: Path, mode: str) -> None:
    masks_of(tmp_path, 0, 1, 2)
    file = tmp_path / "masks/train/0.png"
    Image.open(file).convert("RGB").convert(mode).save(file)
    assert first(Folder("train", str(tmp_path), NAMES)) == [0, 1, 2, 0]


class TestJpeg:
    @staticmethod
    def given(root: Path, *values: int) -> Path:
        masks_of(root, *values)
        for file in list(root.glob("masks/*/*.png")):
            Image.fromarray(np.asarray(Image.open(file))).save(file.with_suffix(".jpg"), quality=90)
            file.unlink()
        return root

    def test_masks_are_refused_with_the_mend(self, tmp_path: Path) -> None:
        with pytest.raises(
            UserError, match=r"the split is empty \(JPEG is no format for masks.*data\.dataset\.tolerance"
        ):
            Folder("train", str(self.given(tmp_path, 0, 255)), NAMES)

    def test_masks_are_read_with_a_tolerance(self, tmp_path: Path) -> None:
        self.given(tmp_path, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255)
        folder = Folder("train", str(tmp_path), values={"a": 0, "b": 255}, tolerance=127)
        assert folder.read(0)[1][:, 0].tolist() == [0] * 8 + [1] * 8 + [0] * 8

    def test_values_that_cannot_be_told_apart(self, tmp_path: Path) -> None:
        with pytest.raises(
            UserError, match=r"tolerance: the values 0 and 1 lie 1 apart.*; take 0, or masks that are no JPEG"
        ):
            Folder("train", str(self.given(tmp_path, 0, 1)), NAMES, tolerance=5)

    def test_colours(self, tmp_path: Path) -> None:
        masks_of(tmp_path, 0)
        for file in list(tmp_path.glob("masks/*/*.png")):
            shades = np.zeros((*SIZE, 3), np.uint8)
            shades[:, 16:] = (200, 30, 30)
            Image.fromarray(shades).save(file.with_suffix(".jpg"), quality=92, subsampling=0)
            file.unlink()
        options: dict[str, Any] = {"names": ["a", "b"], "colors": [[0, 0, 0], [200, 30, 30]], "mask_format": "rgb"}
        mask = Folder("train", str(tmp_path), **options, tolerance=60).read(0)[1]
        assert mask[0, [0, 15, 16, 31]].tolist() == [0, 0, 1, 1]
        with pytest.raises(UserError, match="two differ by 200; take 99"):
            Folder("train", str(tmp_path), **options, tolerance=100)


class TestRoots:
    def test_roboflow(self, tmp_path: Path) -> None:
        for split in ("train", "valid", "test"):
            for i in range(3):
                photo(tmp_path / f"{split}/{i}_png.rf.abc.jpg", i)
                index_png(tmp_path / f"{split}/{i}_png.rf.abc_mask.png", rows(0, 2, 1))
            (tmp_path / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, road\n2, car\n")
        sources = [Folder(split, str(tmp_path)) for split in ("train", "val", "test")]
        assert [(s.split, len(s)) for s in sources] == [("train", 3), ("val", 3), ("test", 3)]
        assert sources[0].label_set.names == ("background", "road", "car")
        assert first(sources[1]) == [0, 2, 1, 0]
        (tmp_path / "train/1_png.rf.abc_mask.png").unlink()
        with pytest.raises(UserError, match=r"1_png\.rf\.abc\.jpg: image without mask"):
            Folder("train", str(tmp_path))

    @pytest.mark.parametrize("subsets", [False, True])
    def test_cvat(self, tmp_path: Path, subsets: bool) -> None:
        lists = tmp_path / "ImageSets/Segmentation"
        lists.mkdir(parents=True)
        (tmp_path / "labelmap.txt").write_text(
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:250,50,83::\n"
        )
        for i in range(5):
            photo(tmp_path / f"JPEGImages/{i}.jpg", i)
            shades = np.zeros((*SIZE, 3), np.uint8)
            shades[1::2] = (250, 50, 83)
            (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
            Image.fromarray(shades).save(tmp_path / f"SegmentationClass/{i}.png")
        if subsets:
            (lists / "train.txt").write_text("0\n1\n2\n")
            (lists / "val.txt").write_text("3\n4\n")
        else:
            (lists / "default.txt").write_text("0\n1\n2\n3\n4\n")
        train, val = (Folder(split, str(tmp_path)) for split in ("train", "val"))
        assert (len(train), len(val)) == ((3, 2) if subsets else (4, 1))
        assert train.label_set.names == ("background", "road")
        assert train.label_set.colors[1] == (250, 50, 83)
        assert first(val) == [0, 1, 0, 1]

    @pytest.mark.parametrize("images", ["{split}/images", "images/{split}", "imgs/{split}"])
    @pytest.mark.parametrize("masks", ["masks", "labels"])
    @pytest.mark.parametrize("val", ["val", "valid"])
    def test_folders_by_other_names(self, tmp_path: Path, images: str, masks: str, val: str) -> None:
        masks = images.replace("images", masks).replace("imgs", masks)
        for split in ("train", val):
            photo(tmp_path / images.format(split=split) / "x.jpg")
            index_png(tmp_path / masks.format(split=split) / "x.png", rows(0, 1))
        assert [len(Folder(split, str(tmp_path), NAMES)) for split in ("train", "val")] == [1, 1]

    def test_folders_of_scenes(self, tmp_path: Path) -> None:
        for scene in ("s1", "s2/deep"):
            photo(tmp_path / f"images/train/{scene}/f.jpg")
            index_png(tmp_path / f"masks/train/{scene}/f.png", rows(0, 1))
        folder = Folder("train", str(tmp_path), NAMES)
        assert [folder.name(i) for i in range(2)] == ["s1/f", "s2/deep/f"]

    def test_that_nobody_understands(self, tmp_path: Path) -> None:
        photo(tmp_path / "fotos/x.jpg")
        with pytest.raises(UserError) as caught:
            Folder("train", str(tmp_path), NAMES)
        assert "images/train is missing" in str(caught.value)
        assert "has fotos/)" in str(caught.value)
        assert "data.dataset.images=…" in str(caught.value)


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        ("classes.txt", "a\nb\n", ("a", "b")),
        ("classes.txt", "crack\n", ("background", "crack")),
        ("obj.names", "a\r\nb\r\nc\r\n", ("a", "b", "c")),
        ("labelmap.txt", "# c\na:0,0,0::\nb:1,2,3::\n", ("a", "b")),
        ("_classes.csv", "Pixel Value, Class\n1, b\n0, a\n", ("a", "b")),
        ("classes.yaml", "0: a\n1: b\n", ("a", "b")),
        ("classes.yaml", "names:\n  0: a\n  1: b\n", ("a", "b")),
    ],
)
def test_files_of_classes(tmp_path: Path, file: str, text: str, names: tuple[str, ...]) -> None:
    masks_of(tmp_path, 0, 1)
    (tmp_path / file).write_text(text)
    assert Folder("train", str(tmp_path)).label_set.names == names


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("labelmap.txt", "a:0,0::\n", "is no NAME:R,G,B"),
        ("_classes.csv", "0, a\nx, b\n", "is no new VALUE, NAME"),
        ("classes.txt", "\n", "names 0 classes"),
        ("classes.txt", "a\nb\x1b[31m\n", "is no name for a class"),
        ("classes.yaml", "0: a\n5: b\n", "data.dataset.values"),
    ],
)
def test_bad_files_of_classes(tmp_path: Path, file: str, text: str, said: str) -> None:
    masks_of(tmp_path, 0, 1)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError) as caught:
        Folder("train", str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path / file}: ")
    assert said in str(caught.value)
    assert "\x1b" not in str(caught.value)


class TestNothingToLearn:
    @staticmethod
    def options(root: Path, *more: str) -> list[str]:
        return [
            "data=folder",
            f"data.root={root}",
            "data.num_workers=0",
            "data.crop=[16,16]",
            "data.batch_size=2",
            *more,
        ]

    @pytest.mark.parametrize("cache", ["null", "ram"])
    def test_ends_the_run_with_the_mend(self, tmp_path: Path, cache: str) -> None:
        root = masks_of(tmp_path, 0, 255)
        data = build_data(
            compose("inspect", self.options(root, "data.dataset.names=[bg,fg]", f"data.cache={cache}"))["data"], seed=0
        )
        with pytest.raises(UserError) as caught:
            data.prepare()
        assert "no pixel of the 3 training masks read is fg, while 50.0% are ignored" in str(caught.value)
        assert "data.dataset.values={0: bg, 255: fg}" in str(caught.value)

    def test_is_what_inspect_says(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        root = masks_of(tmp_path, 0, 255, splits=("train",))
        problems = inspect.inspect(compose("inspect", self.options(root, "data.dataset.names=[bg,fg]")))
        assert len(problems) == 1
        assert "data.dataset.values={0: bg, 255: fg}" in problems[0]
        assert "val: the data has no val split" in capsys.readouterr().out

    @pytest.mark.parametrize("values", [(0, 1, 255), (0, 0)])
    def test_is_not_said_of_others(
        self, tmp_path: Path, values: tuple[int, ...], caplog: pytest.LogCaptureFixture
    ) -> None:
        root = masks_of(tmp_path, *values)
        data = build_data(compose("inspect", self.options(root, "data.dataset.names=[a,b,c]"))["data"], seed=0)
        data.prepare()
        assert "none of the 3 training masks read has a pixel of" in caplog.text
