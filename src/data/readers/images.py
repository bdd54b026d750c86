"""Reads image and mask files, or says in a `UserError` which file, what is wrong with it and the mend."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from src.data.readers import jpeg
from src.data.readers.picture_limits import check_header, check_photo, formats, unread
from src.errors import UserError
from src.files.untrusted import open_regular, shown

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", *HEIC_SUFFIXES)
MASK_SUFFIXES = (".png", ".tif", ".tiff")
JPEG_SUFFIXES = (".jpg", ".jpeg")  # of masks only with a tolerance: JPEG changes values
NO_CLASS = 254  # stands for a mask value that is neither a class nor ignored
INDEX_MODES = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L")  # PIL's names of one value a pixel

Values = npt.NDArray[np.uint8]  # [H, W, ...]
# What Pillow raises of damaged files; the list grew with the mutations that found them.
_FAILURES = (
    OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, struct.error, zlib.error, OverflowError,
    MemoryError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, AssertionError,
)  # fmt: skip
_STRIP_WISE, _STRIP = 1 << 24, 256  # pixels from which on an image is copied in strips of so many rows
_SHOWN = 12  # values that a message lists
# How EXIF's orientations turn an array [H, W, ...] upright; the last four swap height and width.
_TURNS: dict[int, Callable[[Values], Values]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Encoded(NamedTuple):
    """The bytes of an image file that lies in some other file, and what a message calls it."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


def read_rgb(file: Path | Encoded) -> Tensor:
    """Any image file as uint8 [3, H, W], turned upright as its EXIF tag says.

    Raises:
        UserError: missing, truncated or no image.
    """
    return _read_upright(file)[0]


def picture_pixels(file: Path) -> int:
    """How many pixels a picture has, as its header says; 0 where it cannot be read."""
    try:
        with open_picture(file, "an image") as image:
            return image.width * image.height
    except UserError:
        return 0


def read_pair(image_file: Path | Encoded, mask: npt.NDArray[np.uint8], mask_name: str) -> tuple[Tensor, Tensor]:
    """An image, uint8 [3, H, W], upright, and its mask, uint8 [H, W].

    A photo that a camera turned by its EXIF tag is shown upright by viewers and labelling tools, so that its mask is
    upright too. A mask that was drawn over the stored pixels instead, which its size tells, is turned with the photo.

    Args:
        image_file: the image.
        mask: class indices [H, W].
        mask_name: the mask's file, for messages.

    Raises:
        UserError: the image cannot be read, or sizes differ.
    """
    image, orientation = _read_upright(image_file)
    size = tuple(image.shape[-2:])
    if mask.shape != size and mask.shape[::-1] == size and orientation >= 5:
        mask = _TURNS[orientation](mask)
    if mask.shape != size:
        raise UserError(
            f"{mask_name}: mask is {mask.shape[1]}x{mask.shape[0]} but its image {image_file} is {size[1]}x{size[0]}; "
            "width and height must be equal"
        )
    return image, torch.from_numpy(np.ascontiguousarray(mask))


def read_index_mask(file: Path | Encoded, lookup: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A mask of one value a pixel as class indices, uint8 [H, W]; a palette does not matter. A gray image written as RGB, as
    OpenCV does, is that value three times.

    Args:
        file: PNG, TIFF …, 1, 8, 16 or 32 bits.
        lookup: [n], the class of each value; values beyond it are `NO_CLASS`.

    Raises:
        UserError: it cannot be read, is no index image, or has a value that is neither a class nor ignored.
    """
    with open_picture(file, "a mask") as image:
        gray = _gray(image)
        if gray is None:
            raise UserError(
                f"{file}: mask is {image.mode}, not an index image (one value a pixel); convert it, or where its colours "
                "are the classes take data=folder with data.dataset.mask_format=rgb and data.dataset.colors"
            )
        values = np.asarray(upright(gray))
    return look_up(values, lookup, file)


def look_up(
    values: npt.NDArray[np.integer], lookup: npt.NDArray[np.uint8], file: Path | Encoded
) -> npt.NDArray[np.uint8]:
    """Class indices of mask values of any dtype of whole numbers, as `read_index_mask` gives them; messages name `file`."""
    values = values.astype(np.uint8) if values.dtype == bool else values
    if values.dtype == np.uint8:
        table = lookup[:256].tobytes().ljust(256, bytes([NO_CLASS]))
        found = bytearray(values.tobytes()).translate(table)  # half of the time of take() and a comparison
        mask = np.frombuffer(found, np.uint8).reshape(values.shape)
        if NO_CLASS in found:
            raise UserError(_out_of_range(file, values, values[mask == NO_CLASS][0], lookup))
        return mask
    outside = (values < 0) | (values >= len(lookup))
    if outside.any():
        raise UserError(_out_of_range(file, values, values[outside][0], lookup))
    mask = lookup.take(values)
    wrong = mask == NO_CLASS
    if wrong.any():
        raise UserError(_out_of_range(file, values, values[wrong][0], lookup))
    return mask


def index_lookup(classes: int, ignored: list[int], ignore_index: int) -> npt.NDArray[np.uint8]:
    """The class of each 16-bit mask value: class k is k, `ignored` and 255 are `ignore_index`, others `NO_CLASS`."""
    lookup = np.full(65536, NO_CLASS, np.uint8)
    lookup[:classes] = range(classes)
    lookup[[255, *ignored]] = ignore_index
    return lookup


@contextmanager
def open_picture(file: Path | Encoded, kind: str) -> Iterator[Image.Image]:
    """PIL's image of a file of the formats that are read; whatever goes wrong while it is opened or decoded is a `UserError`.

    Raises:
        UserError: also where it is no regular file, of another format, too large, several pictures, or loses bits or
            channels by being read.
    """
    start = b""
    try:
        with _stream(file) as stream:
            start = stream.read(16)
            stream.seek(0)
            with Image.open(stream, formats=formats(start, file)) as image:
                check_header(image, file)
                yield image
    except _FAILURES as error:
        reason = (shown(str(error)).strip().splitlines() or [type(error).__name__])[0][:120]
        if isinstance(file, Path) and file.is_dir():
            reason = "it is a folder"
        elif isinstance(file, Path) and file.is_file() and not file.stat().st_size:
            reason = "it is empty"
        elif isinstance(error, Image.DecompressionBombError):
            reason = f"it has more than twice the pixels that one picture may have: {reason}"
        elif isinstance(error, UnidentifiedImageError):
            reason = unread(start)
        raise UserError(f"{file}: cannot be read as {kind} ({reason}); replace or remove it") from None


def upright(image: Image.Image) -> Image.Image:
    """As its EXIF tag says; without a copy where it is upright."""
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _content(file: Path | Encoded) -> bytes:
    """The bytes of what may be a plain JPEG; none where there are too many, or it cannot be read, as Pillow then says."""
    if isinstance(file, Encoded):
        return file.content
    try:
        with _stream(file) as stream:
            start = stream.read(8)
            content = start + stream.read(jpeg.MOST) if start.startswith(jpeg.BEGINS) else b""
    except (OSError, UserError):
        return b""
    return content if len(content) <= jpeg.MOST else b""


def _stream(file: Path | Encoded) -> BinaryIO:
    if isinstance(file, Encoded):
        return io.BytesIO(file.content)
    if file.is_dir():
        raise IsADirectoryError(str(file))
    return open_regular(file, links=True)


def _read_upright(file: Path | Encoded) -> tuple[Tensor, int]:
    content = _content(file)
    plain = jpeg.is_plain(content)
    if plain and (pixels := jpeg.decoded(content, file)) is not None:
        return torch.from_numpy(pixels).permute(2, 0, 1), 1
    with open_picture(file, "an image") as image:
        check_photo(image, file)
        orientation = _orientation(image)
        read = None if plain or image.format != "JPEG" else jpeg.decoded(content, file)
        if read is None:
            if image.mode in ("RGBa", "La"):  # colours that were multiplied by their opacity
                image = image.convert(image.mode.upper())
            read = _pixels(image if image.mode == "RGB" else image.convert("RGB"))
    pixels = np.ascontiguousarray(_TURNS[orientation](read)) if orientation in _TURNS else read
    # Stays in the file's order, all channels of a pixel together: only what is cropped is put into torch's.
    return torch.from_numpy(pixels).permute(2, 0, 1), orientation


def _pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """An RGB image as uint8 [H, W, 3], strip by strip: Pillow would copy the whole of it twice."""
    if image.width * image.height <= _STRIP_WISE:
        return np.array(image)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _STRIP):
        end = min(top + _STRIP, image.height)
        pixels[top:end] = np.asarray(image.crop((0, top, image.width, end)))
    return pixels


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 to 8; 1 where there is none or it is nonsense, as viewers do."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _FAILURES:
        return 1
    return orientation if isinstance(orientation, int) and orientation in range(1, 9) else 1


def _gray(image: Image.Image) -> Image.Image | None:
    """The image of one value a pixel that it is, or that its equal channels are; None where it is neither."""
    if image.mode in INDEX_MODES:
        return image
    if image.mode not in ("RGB", "RGBA", "LA"):
        return None
    *colors, last = image.split()
    if image.mode == "RGB":
        colors.append(last)
    elif last.getextrema() != (255, 255):
        return None
    first = colors[0].tobytes()
    if any(channel.tobytes() != first for channel in colors[1:]):
        return None
    gray = colors[0]
    gray.info.update(image.info)  # the EXIF tag that says how it is turned
    return gray


def _out_of_range(
    file: Path | Encoded, found: npt.NDArray[np.generic], value: np.generic, lookup: npt.NDArray[np.uint8]
) -> str:
    values = np.flatnonzero(lookup < NO_CLASS)
    present = np.unique(found)
    shown = ", ".join(map(str, present[:_SHOWN])) + (" …" if len(present) > _SHOWN else "")
    meanings = ", ".join(f"{one}: NAME" for one in present[:_SHOWN])
    classes = lookup[values].max() + 1
    theirs = (
        f"{values[0]} to {values[-1]}"
        if np.ptp(values) == len(values) - 1 or len(values) > _SHOWN
        else ", ".join(map(str, values[:_SHOWN]))
    )
    return (
        f"{file}: label {value} is out of range; {classes} classes are {theirs}, and the file has {shown}; correct the mask, "
        f"or with data=folder say what its values mean: data.dataset.values={{{meanings}}}, or list those to ignore in "
        "data.dataset.ignore"
    )
