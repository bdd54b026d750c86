"""Decodes what most data sets are made of, plain JPEGs, without Pillow: its bits in 0.6 of its time.

All else, and whatever is damaged, is None here: Pillow reads it, or says what is wrong with it. (PNGs are Pillow's: torchvision
reads them faster and crashes on damaged ones.)
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


def decoded(content: bytes, name: object) -> npt.NDArray[np.uint8] | None:
    """A plain JPEG's pixels, RGB, uint8 [H, W, 3].

    Args:
        name: of the file, for messages.

    Raises:
        UserError: it has more pixels than a picture may have.
    """
    if not content.startswith(BEGINS) or any(mark in content for mark in _NOT_PLAIN):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content, strict=True)
        check_size(width, height, name)
        if colors not in ("YCbCr", "RGB"):
            return None
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(content, "RGB", strict=True)
    except ValueError:  # also of what it would only warn of
        return None
    return pixels
