"""Decodes JPEGs with simplejpeg: Pillow's bits in 0.7 of its time.

What it would refuse or only warn of is left to Pillow, which reads it or says what is wrong with it. PNGs are Pillow's:
torchvision reads them faster and crashes on damaged ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import simplejpeg

from src.data.readers.picture_limits import check_size

MOST = 1 << 26  # bytes of a file that is read at once
BEGINS = b"\xff\xd8\xff"
_NOT_PLAIN = (
    b"Exif\0",
    b"http://ns.adobe.com/xap",
    b"MPF\0",
)  # what turns it, may turn it, or makes it several pictures


def is_plain(content: bytes) -> bool:
    """Whether nothing in a JPEG is for Pillow to tell, as how it is turned."""
    return content.startswith(BEGINS) and not any(mark in content for mark in _NOT_PLAIN)


def decoded(content: bytes, name: object) -> npt.NDArray[np.uint8] | None:
    """A JPEG's pixels as they are stored, RGB, uint8 [H, W, 3]; None where it is damaged, has other colours, or is none.

    Args:
        name: of the file, for messages.

    Raises:
        UserError: it has more pixels than a picture may have.
    """
    if not content.startswith(BEGINS):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content, strict=True)
        check_size(width, height, name)
        if colors not in ("YCbCr", "RGB"):
            return None
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(content, "RGB", strict=True)
    except (ValueError, MemoryError):  # the former also of what libjpeg would only warn of
        return None
    return pixels
