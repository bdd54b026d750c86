"""Limits what a picture file may be: of the formats that are read, of a bounded size, and nothing lost by reading it."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.errors import UserError
from src.optional_packages import needs

# Pillow goes by content, not by name: of all that it knows, some formats run programs (Ghostscript for PostScript) or
# are decoded by code that few have looked at.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_LIMIT = "PIXELWISE_MAX_MEGAPIXELS"
_MEGAPIXELS = 150  # as RGB, decoded and turned upright, about 1 GB
_PAGES = 16  # of a TIFF that are looked at
_NO_PAGE = 0b101  # TIFF's NewSubfileType: a smaller copy, a mask
_EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr")

_log = logging.getLogger(__name__)
_said: set[str] = set()


def max_pixels() -> int:
    """The most pixels that one picture may have: 150 million, or as $PIXELWISE_MAX_MEGAPIXELS says.

    Raises:
        UserError: it is no number above 0.
    """
    given = os.environ.get(_LIMIT, str(_MEGAPIXELS))
    try:
        limit = float(given)
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1e6:
        raise UserError(f"{_LIMIT}: should be a number of megapixels above 0, not {given!r}")
    return round(limit * 1e6)


# Pillow only warns of a picture above its limit, and refuses one of twice as many pixels; `check_size` draws the line.
with contextlib.suppress(UserError):  # said where the first picture is opened
    Image.MAX_IMAGE_PIXELS = max(max_pixels(), 1 << 20)
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # it tells of what the error then says


def formats(start: bytes, file: object) -> tuple[str, ...]:
    """Pillow's names of the formats that a picture may have which begins with these 16 bytes or more. What a phone writes as
    HEIC is read by the extra `heic`: pi-heif, which only decodes; the wheels of pillow-heif hold an encoder under the GPL.

    Raises:
        UserError: it is HEIC, and the extra is not installed.
    """
    if start[4:8] != b"ftyp" or start[8:12] not in _HEIC:
        return FORMATS
    try:
        needs("pi_heif", "heic").register_heif_opener(thumbnails=False)
    except UserError as error:
        raise UserError(f"{file}: is HEIC: {error}") from None
    return ("HEIF",)


def check_size(width: int, height: int, file: object) -> None:
    """Checks that a picture's pixels fit in memory.

    Raises:
        UserError: they are more than `max_pixels`.
    """
    if not 0 < width * height <= max_pixels():
        raise UserError(
            f"{file}: is {width}x{height} = {width * height / 1e6:,.0f} megapixels, more than the {max_pixels() / 1e6:,.0f} "
            f"that one picture may have; cut it into tiles, read it by windows with data=geotiff, or set {_LIMIT}"
        )


def check_header(image: Image.Image, file: object) -> None:
    """Checks what was opened and not decoded yet: its size, that it is one picture, and that Pillow drops nothing of it.

    Raises:
        UserError: it has too many pixels, several pages or frames, or channels of more than 8 bits, or more channels, than
            Pillow keeps.
    """
    check_size(*image.size, file)
    _check_one(image, file)
    bits, channels = _depth(image)
    if bits > 8 and image.format == "HEIF":
        raise UserError(f"{file}: has {bits} bits a channel, of which 8 would be read; save it as a picture of 8 bits")
    if bits > 8 and channels > 1:
        raise UserError(
            f"{file}: has {channels} channels of {bits} bits, of which Pillow would keep 8; scale it to 8 bits, or take "
            "data=geotiff with data.dataset.bands and data.dataset.intensity"
        )
    if channels > len(image.getbands()) or image.mode == "RGBX":
        raise _dropped(file, channels, f"of which {min(3, len(image.getbands()))} would be read")


def check_photo(image: Image.Image, file: object) -> None:
    """Checks that a picture becomes RGB of 8 bits rightly; what is lost where it does is said once.

    Raises:
        UserError: its values are deeper, its colours unknown, or what it calls transparency is a channel of values.
    """
    if image.mode.startswith("I") or image.mode == "F":
        raise UserError(
            f"{file}: image has more than 8 bits a channel ({image.mode}), which PIL would cut off at 255; "
            "scale it to 8 bits, or take data=geotiff with data.dataset.bands=[1] and data.dataset.intensity"
        )
    if image.mode not in _EIGHT_BITS:
        raise UserError(f"{file}: its colours are {image.mode}, which is not read; save it as RGB")
    if image.mode == "CMYK":
        _say(f"{file}: is CMYK, which becomes RGB without its colour profile", "CMYK")
    if image.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and "transparency" not in image.info:
        return
    has_alpha = image.mode.endswith(("A", "a"))
    alpha = np.asarray(
        image.getchannel(len(image.getbands()) - 1) if has_alpha else image.convert("RGBA").getchannel("A")
    )
    lowest, highest = int(alpha.min()), int(alpha.max())
    if lowest == 255:
        return
    channels = len(image.getbands())
    if has_alpha and lowest != highest and ((alpha > 0) & (alpha < 255)).mean() > 0.5:
        raise _dropped(file, channels, "the last of which is no transparency (most of it is neither 0 nor 255)")
    _say(f"{file}: has transparent pixels, whose stored colours are read as if they were not", "transparent")


def unread(start: bytes) -> str:
    """Why Pillow knows nothing of a file that begins so."""
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "a TIFF of many bands, of fractions, or damaged: data=geotiff reads those that are whole"
    if start.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "it is PostScript, which is a program and not run"
    return f"its content is none of {', '.join(FORMATS)}, or is damaged"


def _check_one(image: Image.Image, file: object) -> None:
    if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        raise UserError(
            f"{file}: is an animation, and only its first picture would be read; save that as a file of its own"
        )
    if image.format != "TIFF":  # a phone's JPEG may hold a second, smaller picture
        return
    pages = 1
    try:
        for page in range(1, _PAGES):
            image.seek(page)
            pages += not int(_tag(image, 254, 0)) & _NO_PAGE
    except EOFError:
        pass
    image.seek(0)
    if pages > 1:
        raise UserError(
            f"{file}: has {pages}{' or more' if pages == _PAGES else ''} pages, and only the first would be read; save each "
            "as a file of its own"
        )


def _depth(image: Image.Image) -> tuple[int, int]:
    """Bits a channel, and channels, as the file's header says."""
    channels = len(image.getbands())
    if image.format == "TIFF":
        bits = _tag(image, 258, (8,))
        return max(map(int, bits if isinstance(bits, tuple) else (bits,))), int(_tag(image, 277, channels))
    if image.format == "HEIF":
        return int(image.info.get("bit_depth", 8)), channels
    tile = getattr(image, "tile", [])
    raw = tile[0].args if image.format == "PNG" and tile else ""
    return 16 if ";16" in str(raw if isinstance(raw, str) else raw[0]) else 8, channels


def _tag(image: Any, number: int, default: Any) -> Any:
    value = image.tag_v2.get(number, default)
    return value if isinstance(value, (int, tuple)) else default


def _dropped(file: object, channels: int, why: str) -> UserError:
    bands = ",".join(map(str, range(1, channels + 1)))
    how = f"take data=geotiff with data.dataset.bands=[{bands}]" if isinstance(file, Path) else "store its bands raw"
    return UserError(f"{file}: has {channels} channels, {why}; {how}, or save it as RGB")


def _say(what: str, kind: str) -> None:
    """A warning of each kind once a process."""
    if kind not in _said:
        _said.add(kind)
        _log.warning("%s (said once)", what)
