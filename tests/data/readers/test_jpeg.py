"""Photos are decoded by simplejpeg: the same bits as Pillow's, and what it would refuse or repair is left to Pillow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from src.data.readers import images
from src.data.readers.images import Encoded, read_rgb
from src.errors import UserError

KINDS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True, "quality": 40},
    "coarse": {"quality": 3},
    "fine": {"quality": 100},
    "stored as RGB": {"keep_rgb": True},
    "restart markers": {"restart_marker_blocks": 3},
    "a colour profile and a comment": {"icc_profile": b"x" * 70000, "comment": "said"},
}


def _photo(height: int, width: int, mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(height * 1000 + width)
    small = Image.fromarray(generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def _jpeg(photo: Image.Image, **how: Any) -> bytes:
    stream = io.BytesIO()
    photo.save(stream, "JPEG", **how)
    return stream.getvalue()


def _of_pillow(content: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image)
        return torch.from_numpy(np.array(upright.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("how", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 48), (101, 7)])
def test_a_jpeg_has_pillows_bits(how: dict[str, Any], size: tuple[int, int]) -> None:
    content = _jpeg(_photo(*size), **how)
    assert torch.equal(read_rgb(Encoded("photo.jpg", content)), _of_pillow(content))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_jpeg_of_other_colours_has_pillows_bits(mode: str) -> None:
    content = _jpeg(_photo(30, 41, mode))
    assert torch.equal(read_rgb(Encoded("photo.jpg", content)), _of_pillow(content))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"turned.{suffix}"
    _photo(24, 38).save(file, exif=exif)
    assert torch.equal(read_rgb(file), _of_pillow(file.read_bytes()))


def test_a_plain_jpeg_is_not_opened_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("opened by Pillow")

    monkeypatch.setattr(images, "open_picture", refused)
    assert read_rgb(Encoded("photo.jpg", _jpeg(_photo(30, 41)))).shape == (3, 30, 41)


def test_a_turned_jpeg_is_opened_by_pillow_and_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("decoded by Pillow")

    exif = Image.Exif()
    exif[0x0112] = 6
    monkeypatch.setattr(images, "_pixels", refused)
    assert read_rgb(Encoded("photo.jpg", _jpeg(_photo(30, 41), exif=exif))).shape == (3, 41, 30)


def test_a_plain_jpeg_of_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELWISE_MAX_MEGAPIXELS", "0.001")
    with pytest.raises(
        UserError, match=r"photo\.jpg: is 41x30 = 0 megapixels, more than the 0 that one picture may have"
    ):
        read_rgb(Encoded("photo.jpg", _jpeg(_photo(30, 41))))


def test_a_damaged_jpeg_is_refused_or_read_as_pillow_does() -> None:
    """Cut off anywhere, or with wrong bytes anywhere: the same pixels as Pillow's, or an error where Pillow has one."""
    content = _jpeg(_photo(40, 56), quality=70)
    generator = np.random.default_rng(0)
    damaged = [content[:end] for end in generator.integers(20, len(content) - 1, 60)]
    for _ in range(150):
        changed = bytearray(content)
        for at in generator.integers(2, len(content), 2):
            changed[at] = generator.integers(0, 256)
        damaged.append(bytes(changed))
    refused = repaired = 0
    for one in damaged:
        try:
            expected = _of_pillow(one)
        except Exception:  # Pillow raises whatever its parsers run into
            refused += 1
            with pytest.raises(UserError, match=r"damaged\.jpg: "):
                read_rgb(Encoded("damaged.jpg", one))
            continue
        repaired += 1
        assert torch.equal(read_rgb(Encoded("damaged.jpg", one)), expected)
    assert refused >= 60 and repaired >= 20


def test_bytes_after_the_picture_do_not_matter() -> None:
    content = _jpeg(_photo(30, 41))
    assert torch.equal(read_rgb(Encoded("photo.jpg", content + b"\0" * 1000)), _of_pillow(content))


def test_a_file_that_is_too_large_to_be_read_at_once_is_pillows(tmp_path: Path) -> None:
    """80 MB whose picture has 1,230 pixels."""
    file = tmp_path / "long.jpg"
    content = _jpeg(_photo(30, 41))
    with file.open("wb") as stream:
        stream.write(content)
        stream.truncate(80_000_000)
    assert images._content(file) == b""
    assert torch.equal(read_rgb(file), _of_pillow(content))


def test_memory_that_runs_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("simplejpeg.decode_jpeg", full)
    monkeypatch.setattr(images, "_pixels", full)
    with pytest.raises(UserError, match=r"photo\.jpg: cannot be read as an image"):
        read_rgb(Encoded("photo.jpg", _jpeg(_photo(30, 41))))
