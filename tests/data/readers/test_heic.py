"""Phones' HEIC photos are read by an extra, in training and prediction; nothing of them is lost without a word."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.formats.folder import Folder
from src.data.readers.images import read_rgb
from src.data.readers.picture_limits import max_pixels
from src.errors import UserError
from src.inference.inputs import find

# As pillow-heif wrote them. 48 wide, 64 high, stored rotated: red above, blue below, the 8 left columns green.
PHOTO = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAAAA"
    "AERAAAIAAQAAAAAB7AABAAAAAAAAAMYAAgAAAAACsgABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZl"
    "AgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH/"
    "/wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29s"
    "cm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAADAAAAABAAAAQAAAAAH////wAAAAAgAAAAAAAAACAAAAEHBpeGkAAAAA"
    "AwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAPJtZGF0AAAAwigBrwY4PPvb"
    "bnJ///cw//++oH+b+VW99nHW/6ntLrzffXu9kdg/9cV7z+F56Ndl6yTeIKc2ke58966QAcOMOIY1/iuiU2Ltp6Y+edL0p2EJxWnzt1TCwo+8NExd"
    "GvDPkPbQcQfYlMIHfdur03pRvZYg/+l8mjpG1oFi1DcGotkQ8YE5KEUEs5vzq4cFlLINC9Nx2OuzpU82DSxYx02yB8vj1fDD/RGH+Qc6Xo0+/qKd"
    "co18vj1fDD/RElDdujf8VY+AAAAABkV4aWYAAE1NACoAAAAIAAEBEgADAAAAAQAGAAAAAAAA"
)
TEN_BITS = base64.b64decode(
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAA"
    "AERAAAEAAQAAAAABoAABAAAAAAAAABYAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADc"
    "aXBjbwAAAHVodmNDAQQIAAAAnbgAAAAAHvAA/P36+gAADwNgAAEAF0ABDAH//wQIAAADAJ24AAADAAAeugJAYQABACpCAQEECAAAAwCduAAAAwAA"
    "HqAggQTZbq5Ka5uAhoMCAAADADIAAAMAAhBiAAEABkQBwXPAiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFw"
    "AAAAMAAAAAEAAABAAAAAAf////AAAAACAAAAAAAAAAIAAAAQcGl4aQAAAAADCgoKAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAAHm1kYXQAAAAS"
    "KAGvBjiJ8sPpvxreNkBw5Rnw"
)


def test_a_photo_is_read_upright_whatever_its_name(tmp_path: Path) -> None:
    for name in ("IMG_1.HEIC", "really.jpg"):
        (tmp_path / name).write_bytes(PHOTO)
        image = read_rgb(tmp_path / name).permute(1, 2, 0).numpy()
        Image.fromarray(image).save(tmp_path / "again.png")
        assert image.shape == (48, 64, 3)
        for (y, x), color in {(4, 4): (30, 180, 60), (30, 50): (200, 40, 40), (30, 10): (40, 40, 200)}.items():
            assert np.abs(image[y, x].astype(int) - color).max() < 12, (y, x)


def test_training_and_prediction_find_them(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            (tmp_path / folder / split).mkdir(parents=True)
        (tmp_path / f"images/{split}/a.heic").write_bytes(PHOTO)
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / f"masks/{split}/a.png")
    image, mask = Folder("train", str(tmp_path), names=["road", "car"]).read(0)
    assert image.shape == (3, 48, 64) and mask.shape == (48, 64)
    assert find(str(tmp_path / "images/val"), tmp_path / "out").files["a"].name == "a.heic"


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(PHOTO)
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(UserError, match=r"a\.heic: is HEIC.*\[heic\]"):
        read_rgb(tmp_path / "a.heic")


def test_deep_damaged_and_large_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content, said in ((TEN_BITS, "10 bits"), (PHOTO[:700], "cannot be read"), (PHOTO[:40], "cannot be read")):
        (tmp_path / "a.heic").write_bytes(content)
        with pytest.raises(UserError, match=said):
            read_rgb(tmp_path / "a.heic")
    monkeypatch.setenv("PIXELWISE_MAX_MEGAPIXELS", "0.001")
    assert max_pixels() == 1000
    (tmp_path / "a.heic").write_bytes(PHOTO)
    with pytest.raises(UserError, match="megapixels"):
        read_rgb(tmp_path / "a.heic")
