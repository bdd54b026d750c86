"""A file that is there whole or not at all."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to, with its suffix. It becomes `file` once the block has ended well; after an error or
    Ctrl-C nothing of it is left. For writers that want a path; `run_folder.write_atomically` serves those that want a stream.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    tail = ".nii.gz" if file.name.endswith(".nii.gz") else file.suffix  # what writers go by
    partial = file.with_name(f".part-{secrets.token_hex(6)}{tail}")  # short, where the file's name may be of any length
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


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
