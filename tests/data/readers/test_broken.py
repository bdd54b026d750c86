"""A gallery of files as they come: each is read rightly, or refused with its name, the reason and the mend on one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin

from src.data.formats.cityscapes import Cityscapes
from src.data.formats.folder import Folder
from src.data.formats.voc import VOC
from src.errors import UserError
from tests.data.formats.test_folder import NAMES, write
from tests.data.layouts import SIZE, cityscapes, photo, rows, voc

IMAGE, MASK = "images/train/01.png", "masks/train/01.png"
Spoil = Callable[[Path], None]


def save_mask(root: Path, image: Image.Image, name: str = MASK) -> None:
    image.save(root / name)


# What is refused


def truncated_png(root: Path) -> None:
    (root / IMAGE).write_bytes((root / IMAGE).read_bytes()[:200])


def truncated_jpeg(root: Path) -> None:
    (root / IMAGE).unlink()
    photo(root / "images/train/01.jpg", size=(240, 320))
    (root / "images/train/01.jpg").write_bytes((root / "images/train/01.jpg").read_bytes()[:2000])


def truncated_mask(root: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 3, (200, 200), np.uint8)).save(root / MASK)
    (root / MASK).write_bytes((root / MASK).read_bytes()[:-2000])


def zero_bytes(root: Path) -> None:
    (root / IMAGE).write_bytes(b"")


def zero_byte_mask(root: Path) -> None:
    (root / MASK).write_bytes(b"")


def text_as_mask(root: Path) -> None:
    (root / MASK).write_text("no image")


def folder_named_as_image(root: Path) -> None:
    (root / IMAGE).unlink()
    (root / IMAGE).mkdir()


def folder_named_as_mask(root: Path) -> None:
    (root / MASK).unlink()
    (root / MASK).mkdir()


def link_to_nothing(root: Path) -> None:
    (root / IMAGE).unlink()
    (root / IMAGE).symlink_to(root / "gone.png")


def mask_larger(root: Path) -> None:
    save_mask(root, Image.new("L", (40, 30)))


def mask_on_its_side(root: Path) -> None:
    save_mask(root, Image.new("L", SIZE))


def label_200(root: Path) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[5, 5] = 200
    save_mask(root, Image.fromarray(mask))


def label_of_16_bits(root: Path) -> None:
    save_mask(root, Image.fromarray(np.full(SIZE, 700, np.uint16)))


def label_of_32_bits(root: Path) -> None:
    (root / MASK).unlink()
    save_mask(root, Image.fromarray(np.full(SIZE, 70_000, np.int32)), "masks/train/01.tif")


def negative_label(root: Path) -> None:
    (root / MASK).unlink()
    save_mask(root, Image.fromarray(np.full(SIZE, -1, np.int32)), "masks/train/01.tif")


def mask_of_fractions(root: Path) -> None:
    (root / MASK).unlink()
    save_mask(root, Image.fromarray(np.zeros(SIZE, np.float32)), "masks/train/01.tif")


def mask_in_colour(root: Path) -> None:
    save_mask(root, Image.new("RGB", SIZE[::-1], (200, 0, 0)))


def mask_with_alpha(root: Path) -> None:
    save_mask(root, Image.new("LA", SIZE[::-1]))


def image_of_16_bits(root: Path) -> None:
    Image.fromarray(np.full(SIZE, 3000, np.uint16)).save(root / IMAGE)


def image_without_mask(root: Path) -> None:
    (root / MASK).unlink()


def mask_without_image(root: Path) -> None:
    (root / IMAGE).unlink()


def two_images_of_one_name(root: Path) -> None:
    Image.new("RGB", SIZE[::-1]).save(root / "images/train/01.jpg")


def two_masks_of_one_name(root: Path) -> None:
    Image.new("L", SIZE[::-1]).save(root / "masks/train/01.tif")


def no_images(root: Path) -> None:
    for file in (root / "images/train").iterdir():
        file.unlink()


def no_folder(root: Path) -> None:
    (root / "masks/train").rename(root / "masks/elsewhere")


REFUSED: dict[Spoil, tuple[str, str]] = {
    truncated_png: (IMAGE, "cannot be read as an image"),
    truncated_jpeg: ("images/train/01.jpg", "cannot be read as an image"),
    truncated_mask: (MASK, "cannot be read as a mask"),
    zero_bytes: (IMAGE, "cannot be read as an image (it is empty); replace or remove it"),
    zero_byte_mask: (MASK, "cannot be read as a mask (it is empty); replace or remove it"),
    text_as_mask: (MASK, "cannot be read as a mask"),
    folder_named_as_image: (IMAGE, "cannot be read as an image (it is a folder)"),
    folder_named_as_mask: (MASK, "cannot be read as a mask (it is a folder)"),
    link_to_nothing: (IMAGE, "cannot be read as an image"),
    mask_larger: (MASK, "mask is 40x30 but its image"),
    mask_on_its_side: (MASK, "mask is 24x32 but its image"),
    label_200: (MASK, "label 200 is out of range; 3 classes are 0 to 2"),
    label_of_16_bits: (MASK, "label 700 is out of range"),
    label_of_32_bits: ("masks/train/01.tif", "label 70000 is out of range"),
    negative_label: ("masks/train/01.tif", "label -1 is out of range"),
    mask_of_fractions: ("masks/train/01.tif", "mask is F, not an index image"),
    mask_in_colour: (MASK, "mask is RGB, not an index image (one value a pixel); convert it"),
    mask_with_alpha: (MASK, "mask is LA, not an index image"),
    image_of_16_bits: (IMAGE, "image has more than 8 bits a channel"),
    image_without_mask: (IMAGE, f"image without mask; {{root}}/{MASK} is missing"),
    mask_without_image: (MASK, "mask without image; add"),
    two_images_of_one_name: (IMAGE, "has the same name as 01.jpg; keep one of them"),
    two_masks_of_one_name: ("masks/train/01.tif", "has the same name as 01.png; keep one of them"),
    no_images: ("images/train", "the split is empty"),
    no_folder: ("masks/train", "is missing; check data.root"),
}


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_refused(tmp_path: Path, spoil: Spoil) -> None:
    spoil(write(tmp_path))
    file, reason = REFUSED[spoil]

    def read() -> None:
        folder = Folder("train", str(tmp_path), NAMES)
        for index in range(len(folder)):
            folder.read(index)

    with pytest.raises(UserError) as caught:
        read()
    assert str(tmp_path / file) in str(caught.value)
    assert reason.format(root=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spoil", [label_200, mask_in_colour], ids=lambda spoil: spoil.__name__)
def test_official_layouts_refuse_the_same(tmp_path: Path, spoil: Spoil) -> None:
    masks = voc(tmp_path) / "VOCdevkit/VOC2012/SegmentationClass"
    write(tmp_path / "spoilt")
    spoil(tmp_path / "spoilt")
    (tmp_path / "spoilt" / MASK).replace(masks / "train_000001.png")
    with pytest.raises(UserError, match=str(masks / "train_000001.png")):
        VOC("train", str(tmp_path)).read(1)


def test_a_damaged_street_scene(tmp_path: Path) -> None:
    source = Cityscapes("val", str(cityscapes(tmp_path)))
    file = tmp_path / "leftImg8bit/val/aachen/aachen_000001_000019_leftImg8bit.png"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{file}: cannot be read as an image"):
        source.read(1)


# What is read rightly


def one(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    return Folder("train", str(root), NAMES).read(1)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_images_of_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    write(tmp_path)
    (tmp_path / IMAGE).unlink()
    Image.new("RGB", SIZE[::-1], (204, 204, 204)).convert(mode).save(
        tmp_path / f"images/train/01.{'jpg' if mode == 'CMYK' else 'png'}"
    )
    image, mask = one(tmp_path)
    assert image.shape == (3, *SIZE)
    assert image.dtype == torch.uint8
    assert mask.shape == SIZE
    if mode != "1":
        assert (image.float() - 204).abs().mean() < 8


@pytest.mark.parametrize("kind", ["palette", "16 bits", "32 bits", "1 bit", "tiff"])
def test_masks_of_other_modes(tmp_path: Path, kind: str) -> None:
    write(tmp_path)
    values = rows(0, 1, 1 if kind == "1 bit" else 2)
    image = Image.fromarray(values.astype(np.uint8))
    if kind == "palette":
        image.putpalette([10, 20, 30, 0, 0, 0, 200, 200, 200])
    elif kind.endswith("bits"):
        image = Image.fromarray(values.astype(np.uint16 if kind == "16 bits" else np.int32))
    elif kind == "1 bit":
        image = Image.fromarray(values.astype(bool))
        assert image.mode == "1"
    name = "masks/train/01.tif" if kind in ("tiff", "32 bits") else MASK
    (tmp_path / MASK).unlink()
    save_mask(tmp_path, image, name)
    assert one(tmp_path)[1][:3, 0].tolist() == values[:3, 0].tolist()


@pytest.mark.parametrize(
    ("orientation", "drawn_over"),
    # Of 2 to 4 a stored mask has the upright one's size: none can tell, and upright is what labelling tools show.
    [*((o, "upright") for o in range(1, 9)), *((o, "stored") for o in (1, 5, 6, 7, 8))],
)
def test_a_turned_photo_and_its_mask_agree(tmp_path: Path, orientation: int, drawn_over: str) -> None:
    """A bright corner of the photo is class 1, whichever way the camera held and whatever the mask was drawn over."""
    corner = np.zeros((16, 40), np.uint8)
    corner[:8, :8] = 1
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "masks/train").mkdir(parents=True)
    Image.fromarray(corner * 255).convert("RGB").save(tmp_path / "images/train/a.png", exif=exif)
    mask = Image.fromarray(corner)
    if drawn_over == "upright":
        mask.getexif()[0x0112] = orientation
        mask = ImageOps.exif_transpose(mask)
    mask.save(tmp_path / "masks/train/a.png")
    image, read = Folder("train", str(tmp_path), NAMES).read(0)
    assert image.shape[-2:] == ((40, 16) if orientation >= 5 else (16, 40))
    assert torch.equal(image[0] > 127, read == 1)


def test_names_with_spaces_and_accents(tmp_path: Path) -> None:
    write(tmp_path, count=1)
    for kind in ("images", "masks"):
        (tmp_path / kind / "train/00.png").rename(tmp_path / kind / "train/Straße nach Süden 1.v2.png")
    folder = Folder("train", str(tmp_path), NAMES)
    assert folder.name(0) == "Straße nach Süden 1.v2"
    folder.read(0)


def test_other_files_and_hidden_ones_do_not_count(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("images/train/.DS_Store", "images/train/._01.png", "masks/train/Thumbs.db", "images/train/notes.txt"):
        (tmp_path / name).write_text("x")
    assert len(Folder("train", str(tmp_path), NAMES)) == 3


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / IMAGE).rename(tmp_path / "images/train/01.PNG")
    (tmp_path / MASK).rename(tmp_path / "masks/train/01.PNG")
    one(tmp_path)


def test_metadata_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path)
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 1000)
    Image.fromarray(rows(0, 1, 2).astype(np.uint8)).save(tmp_path / MASK, pnginfo=info, gamma=0.45, transparency=0)
    assert one(tmp_path)[1][:3, 0].tolist() == [0, 1, 2]
