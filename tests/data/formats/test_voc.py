"""Pascal VOC's layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.data.formats.voc import VOC
from src.data.labels import voc_colors
from src.errors import UserError
from src.training.build import build_data
from tests.conftest import settings
from tests.data.layouts import index_png, photo, rows, voc


def test_the_colour_map_is_vocs() -> None:
    assert voc_colors(256)[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert voc_colors(256)[15] == [192, 128, 128]
    assert voc_colors(256)[255] == [224, 224, 192]
    assert len({tuple(color) for color in voc_colors(256)}) == 256


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_reads_from_the_devkit_or_the_release(tmp_path: Path, below: str) -> None:
    voc(tmp_path)
    train = VOC("train", str(tmp_path / below))
    assert [train.name(i) for i in range(len(train))] == ["train_000000", "train_000001", "train_000002"]
    assert train.read(0)[1][:4, 0].tolist() == [0, 15, 20, 255]
    assert train.label_set.names[15] == "person"
    assert VOC("test", str(tmp_path / below)).split == "val"


def test_other_lists(tmp_path: Path) -> None:
    voc(tmp_path)
    assert len(VOC("train", str(tmp_path), train_list="trainval")) == 6
    augmented = VOC("train", str(tmp_path), train_list="trainaug")
    assert len(augmented) == 6
    assert augmented.read(0)[1][:4, 0].tolist() == [0, 15, 20, 255]
    assert augmented.read(5)[1][:4, 0].tolist() == [0, 1, 0, 1]
    assert len(VOC("val", str(tmp_path), train_list="trainaug")) == 3
    lists = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    lines = [f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png" for n in ("train_000000", "extra_000001")]
    (lists / "trainaug.txt").rename(lists / "train_aug.txt")
    for text in ("\n".join(lines), "\ufeff" + "\r\n".join(lines).replace("/", "\\") + "\r\n"):
        (lists / "train_aug.txt").write_bytes(text.encode())
        assert len(VOC("train", str(tmp_path), train_list="trainaug")) == 2


def test_a_public_test_split(tmp_path: Path) -> None:
    base = voc(tmp_path) / "VOCdevkit/VOC2012"
    (base / "ImageSets/Segmentation/test.txt").write_text("secret")
    assert VOC("test", str(tmp_path)).split == "val"
    photo(base / "JPEGImages/secret.jpg")
    index_png(base / "SegmentationClass/secret.png", rows(1))
    test = VOC("test", str(tmp_path))
    assert (test.split, len(test)) == ("test", 1)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    voc(tmp_path, augmented=False)
    lists = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    with pytest.raises(UserError, match=r"trainaug\.txt: is missing.*train_list=train"):
        VOC("train", str(tmp_path), train_list="trainaug")
    (lists / "trainaug.txt").write_text("train_000000\nval_000001\n")
    with pytest.raises(UserError, match=r"SegmentationClassAug: is missing"):
        VOC("train", str(tmp_path), train_list="trainaug")
    (lists.parent.parent / "SegmentationClassAug").mkdir()
    with pytest.raises(UserError, match=r"val_000001 and 0 others are in val\.txt too"):
        VOC("train", str(tmp_path), train_list="trainaug")
    (lists / "train.txt").write_text("train_000000\nnone\n")
    with pytest.raises(UserError, match=r"JPEGImages/none\.jpg: this image is missing"):
        VOC("train", str(tmp_path))
    with pytest.raises(UserError, match=r"neither VOCdevkit/VOC2007 nor JPEGImages"):
        VOC("train", str(tmp_path), year=2007)


def test_a_download_without_network_ends_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **given: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("src.data.fetch.urlopen", unreachable)
    node = settings(tmp_path, "data=voc", f"data.root={tmp_path}/new", "data.download=true", small=False)["data"]
    with pytest.raises(UserError) as caught:
        build_data(node, seed=0).source("train")
    assert "could not be fetched (no route to host); fetch VOCtrainval_11-May-2012.tar elsewhere" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_data_sets_say_that_they_cannot_be_fetched(tmp_path: Path) -> None:
    node = settings(tmp_path, "data=cityscapes", f"data.root={tmp_path}", "+data.download=true", small=False)["data"]
    with pytest.raises(UserError, match=r"data\.download: this data set cannot be fetched"):
        build_data(node, seed=0)
