"""Images and masks on disk: read rightly, or refused with the file, the reason and the mend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.dataset import Samples
from src.data.formats.camvid import CamVid
from src.data.formats.folder import Folder
from src.data.readers.images import read_rgb
from src.data.sources import Subset
from src.errors import UserError

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


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: there is no folder"):
        Folder("train", str(tmp_path / "none"), NAMES)


def test_camvid_with_a_test_split(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for folder in (split, f"{split}annot"):
            (tmp_path / folder).mkdir()
        Image.new("RGB", (32, 24)).save(tmp_path / split / "x.png")
        Image.fromarray(np.full((24, 32), 11, np.uint8)).save(tmp_path / f"{split}annot" / "x.png")
    test = CamVid("test", str(tmp_path))
    assert test.split == "test"
    assert test.read(0)[1].unique().tolist() == [255]


class TestDepth:
    @staticmethod
    def given(tmp_path: Path) -> Path:
        write(tmp_path)
        (tmp_path / "depth/train").mkdir(parents=True)
        for i in range(3):
            values = np.full((24, 32), 1500 + i, np.uint16)
            values[0] = 0
            Image.fromarray(values).save(tmp_path / f"depth/train/{i:02}.png")
        return tmp_path

    def test_is_read_in_its_unit(self, tmp_path: Path) -> None:
        folder = Folder("train", str(self.given(tmp_path)), NAMES, depths="depth/{split}")
        depth = folder.depth(2)
        assert depth is not None and depth.dtype == torch.float32
        assert depth[0].isnan().all() and torch.allclose(depth[1:], torch.tensor(1.502))
        sample = Samples(Subset(folder, [2]), use_depth=True)[0, 0]
        assert torch.equal(sample["depth"][1:], depth[1:]) and sample["mask"].shape == (24, 32)
        assert Folder("train", str(tmp_path), NAMES).depth(0) is None

    def test_that_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        root = self.given(tmp_path)
        Image.fromarray(np.ones((24, 30), np.uint16)).save(root / "depth/train/01.png")
        samples = Samples(Folder("train", str(root), NAMES, depths="depth/{split}"), use_depth=True)
        with pytest.raises(UserError, match="01: its depth map is 30x24, the image 32x24"):
            samples[0, 1]
        Image.new("RGB", (32, 24)).save(root / "depth/train/01.png")
        with pytest.raises(UserError, match=r"01\.png: depth map is RGB"):
            samples[0, 1]
        (root / "depth/train/01.png").unlink()
        with pytest.raises(UserError, match="no depth map for '01'"):
            Folder("train", str(root), NAMES, depths="depth/{split}")
