"""Pictures as files that are there whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from src.files.atomic import replacing


def save_picture(picture: Image.Image, file: Path, **options: object) -> None:
    """Writes a picture in the format of the file's suffix. It is encoded in memory, since Pillow's own writing hides why it
    failed.

    Args:
        options: Pillow's, of that format.

    Raises:
        OSError: the folder cannot be made or written to; with its number.
    """
    encoded = io.BytesIO()
    Image.init()
    picture.save(encoded, format=Image.EXTENSION[file.suffix], **options)
    with replacing(file) as partial:
        partial.write_bytes(encoded.getbuffer())
