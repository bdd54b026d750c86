"""Images and masks on disk: read rightly, or refused with the file, the reason and the mend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.camvid import CamVid
from src.data.folder import Folder, read_rgb
from src.errors import UserError
from tests.conftest import ROOT

NAMES = ["a", "b", "c"]


def write(root: Path, split: str = "train", count: int = 3, size: tuple[int, int] = (24, 32)) -> Path:
    """A small data set in `Folder`'s layout; the mask's value is the row modulo 3, its last row is ignored."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        mask = np.tile((np.arange(size[0]) % 3).astype(np.uint8)[:, None], (1, size[1]))
        mask[-1] = 255
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(root / f"images/{split}/{i:02}.png")
        Image.fromarray(mask).save(root / f"masks/{split}/{i:02}.png")
    return root


def test_reads_image_and_mask(tmp_path: Path) -> None:
    folder = Folder("train", str(write(tmp_path)), NAMES)
    assert len(folder) == 3
    image, mask = folder.read(1)
    assert image.dtype == mask.dtype == torch.uint8
    assert image.shape == (3, 24, 32)
    assert mask[:, 0].tolist() == [i % 3 for i in range(23)] + [255]
    assert folder.name(1) == "01"
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(tmp_path / "images/train/01.png")))


def test_without_a_test_split_val_is_read(tmp_path: Path) -> None:
    write(tmp_path, "val")
    assert Folder("test", str(tmp_path), NAMES).split == "val"
    write(tmp_path, "test", count=1)
    folder = Folder("test", str(tmp_path), NAMES)
    assert (folder.split, len(folder)) == ("test", 1)


def test_values_to_ignore(tmp_path: Path) -> None:
    folder = Folder("train", str(write(tmp_path)), ["a", "b"], ignore=[2])
    assert folder.read(0)[1].unique().tolist() == [0, 1, 255]


@pytest.mark.parametrize("mode", ["P", "I;16"])
def test_other_index_images(tmp_path: Path, mode: str) -> None:
    write(tmp_path)
    file = tmp_path / "masks/train/00.png"
    values = np.asarray(Image.open(file))
    if mode == "P":
        image = Image.fromarray(values)
        image.putpalette([*range(256)] * 3)
    else:
        image = Image.fromarray(values.astype(np.uint16))
    assert image.mode == mode
    image.save(file)
    assert Folder("train", str(tmp_path), NAMES).read(0)[1][:3, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_images_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (8, 6), (204, 204, 204)).convert(mode)
    file = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    image.save(file)
    pixels = read_rgb(file)
    assert pixels.shape == (3, 6, 8)
    assert (pixels.float() - 204).abs().mean() < 8


def test_a_rotated_photo_is_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None], (16, 1, 3)))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.jpg", exif=exif)
    assert read_rgb(tmp_path / "x.jpg").shape == (3, 32, 16)


def test_names_with_spaces_and_accents(tmp_path: Path) -> None:
    write(tmp_path, count=1)
    for kind in ("images", "masks"):
        (tmp_path / kind / "train/00.png").rename(tmp_path / kind / "train/Straße nach Süden 1.png")
    folder = Folder("train", str(tmp_path), NAMES)
    assert folder.name(0) == "Straße nach Süden 1"
    folder.read(0)


def _truncate(root: Path) -> None:
    file = root / "images/train/01.png"
    file.write_bytes(file.read_bytes()[:200])


def _empty(root: Path) -> None:
    (root / "images/train/01.png").write_bytes(b"")


def _text(root: Path) -> None:
    (root / "masks/train/01.png").write_text("no image")


def _larger(root: Path) -> None:
    Image.new("L", (40, 30)).save(root / "masks/train/01.png")


def _out_of_range(root: Path) -> None:
    mask = np.zeros((24, 32), np.uint8)
    mask[5, 5] = 200
    Image.fromarray(mask).save(root / "masks/train/01.png")


def _colour(root: Path) -> None:
    Image.new("RGB", (32, 24)).save(root / "masks/train/01.png")


def _directory(root: Path) -> None:
    (root / "images/train/01.png").unlink()
    (root / "images/train/01.png").mkdir()


def _no_mask(root: Path) -> None:
    (root / "masks/train/01.png").unlink()


def _no_image(root: Path) -> None:
    (root / "images/train/01.png").unlink()


def _twice(root: Path) -> None:
    Image.new("RGB", (32, 24)).save(root / "images/train/01.jpg")


def _nothing(root: Path) -> None:
    for file in (root / "images/train").iterdir():
        file.unlink()


GALLERY: dict[Callable[[Path], None], tuple[str, str]] = {
    _truncate: ("images/train/01.png", "cannot be read as an image"),
    _empty: ("images/train/01.png", "cannot be read as an image"),
    _text: ("masks/train/01.png", "cannot be read as a mask"),
    _larger: ("masks/train/01.png", "mask is 40x30 but its image"),
    _out_of_range: ("masks/train/01.png", "label 200 is out of range; 3 classes are 0 to 2"),
    _colour: ("masks/train/01.png", "mask is RGB, not an index image"),
    _directory: ("images/train/01.png", "cannot be read as an image"),
    _no_mask: ("images/train/01.png", "image without mask"),
    _no_image: ("masks/train/01.png", "mask without image"),
    _twice: ("images/train/01.png", "has the same name as 01.jpg"),
    _nothing: ("images/train", "the split is empty"),
}


@pytest.mark.parametrize("spoil", GALLERY)
def test_bad_data_is_named(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(write(tmp_path))
    file, reason = GALLERY[spoil]

    def read() -> None:
        folder = Folder("train", str(tmp_path), NAMES)
        for index in range(len(folder)):
            folder.read(index)

    with pytest.raises(UserError) as caught:
        read()
    assert str(tmp_path / file) in str(caught.value)
    assert reason in str(caught.value)


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: there is no folder"):
        Folder("train", str(tmp_path / "none"), NAMES)


CAMVID = ROOT.parent / "shared/data/camvid"


@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not at hand")
def test_camvid_as_released() -> None:
    train, val, test = (CamVid(split, str(CAMVID)) for split in ("train", "val", "test"))
    assert (len(train), len(val), test.split) == (367, 101, "val")
    image, mask = train.read(0)
    assert image.shape == (3, 360, 480)
    shares = (
        torch.bincount(torch.stack([train.read(i)[1] for i in range(0, 367, 12)]).flatten(), minlength=256) / 172800
    )
    shares /= shares.sum()
    assert set(mask.unique().tolist()) <= {*range(11), 255}
    assert shares[3] == pytest.approx(0.317, abs=0.03)  # road
    assert shares[255] == pytest.approx(0.04, abs=0.02)  # void


def test_camvid_with_a_test_split(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for folder in (split, f"{split}annot"):
            (tmp_path / folder).mkdir()
        Image.new("RGB", (32, 24)).save(tmp_path / split / "x.png")
        Image.fromarray(np.full((24, 32), 11, np.uint8)).save(tmp_path / f"{split}annot" / "x.png")
    test = CamVid("test", str(tmp_path))
    assert test.split == "test"
    assert test.read(0)[1].unique().tolist() == [255]
