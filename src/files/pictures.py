"""Pictures as files that are there whole or not at all."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.files.atomic import replacing


def save_picture(picture: Image.Image, file: Path) -> None:
    """Writes a picture in the format of the file's suffix. It is encoded in memory, since Pillow's own writing hides why it
    failed.

    Raises:
        OSError: the folder cannot be made or written to; with its number.
    """
    encoded = io.BytesIO()
    Image.init()
    picture.save(encoded, format=Image.EXTENSION[file.suffix])
    with replacing(file) as partial:
        partial.write_bytes(encoded.getbuffer())


def save_strips(strips: Iterable[npt.NDArray[np.uint8]], height: int, width: int, file: Path) -> None:
    """Writes an RGB picture as PNG that comes in strips [h, W, 3] from the top: Pillow would hold the whole of it, at four
    bytes a pixel, and all that it is encoded to; and it tries five filters for each row.

    Raises:
        OSError: the folder cannot be made or written to; with its number.
    """
    packing = zlib.compressobj(1)
    with replacing(file) as partial, partial.open("wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        above = np.zeros((1, width * 3), np.uint8)
        for strip in strips:
            rows = strip.reshape(len(strip), width * 3)
            lines = np.empty((len(rows), width * 3 + 1), np.uint8)
            lines[:, 0] = 2  # each row as its difference from the one above
            lines[:, 1:] = rows - np.concatenate([above, rows[:-1]])
            above = rows[-1:].copy()
            stream.write(_chunk(b"IDAT", packing.compress(lines.data)))
        stream.write(_chunk(b"IDAT", packing.flush()) + _chunk(b"IEND", b""))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
