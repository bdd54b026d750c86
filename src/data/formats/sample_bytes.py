"""Encodes an image and its mask as bytes, and decodes them to the same bits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.data.readers.images import IMAGE_SUFFIXES, Encoded, open_picture, read_rgb
from src.errors import UserError
from src.files.untrusted import shown

Encoding = Literal["auto", "png", "raw"]
_RAW = b"\x93NUMPY"  # what numpy's own files begin with


def encode(image: Tensor, mask: Tensor, encoding: Encoding, file: Path | None = None) -> tuple[bytes, bytes]:
    """Image [C, H, W] and mask uint8 [H, W] as bytes.

    Args:
        encoding: `raw` stores arrays, which are read fastest; `png` compresses images of 8 bits without loss; `auto` is the
            image's own file where that gives the same pixels (a photo stays a JPEG), else png. What is not 8 bits deep or
            has neither 1 nor 3 channels is stored raw.
        file: the image's own file.
    """
    png = encoding != "raw" and image.dtype == torch.uint8 and image.shape[0] in (1, 3)
    if png and encoding == "auto" and file is not None and file.suffix.lower() in IMAGE_SUFFIXES:
        content = file.read_bytes()
        try:
            if torch.equal(read_rgb(Encoded(str(file), content)), image):
                return content, _png(mask)
        except UserError:
            pass  # a format of which it is only a part
    return _png(image) if png else _raw(image), _raw(mask) if encoding == "raw" else _png(mask)


def decode(image: bytes, mask: bytes, channels: int, name: str) -> tuple[Tensor, Tensor]:
    """The reverse of `encode`.

    Raises:
        UserError: the bytes are damaged.
    """
    if image.startswith(_RAW):
        decoded = _array(image, name)
    else:
        decoded = read_rgb(Encoded(name, image)) if channels == 3 else _gray(image, name)[None]
    classes = _array(mask, name) if mask.startswith(_RAW) else _gray(mask, name)
    if decoded.ndim != 3 or len(decoded) != channels or classes.dtype != torch.uint8 or classes.ndim != 2:
        raise UserError(
            f"{name}: holds an image {list(decoded.shape)} and a mask {list(classes.shape)} of {classes.dtype}, not {channels} "
            "channels and one class a pixel; convert the data again"
        )
    return decoded, classes


def _png(pixels: Tensor) -> bytes:
    buffer = io.BytesIO()
    array = pixels.permute(1, 2, 0).numpy() if pixels.ndim == 3 else pixels.numpy()
    Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array).save(buffer, "PNG")
    return buffer.getvalue()


def _raw(values: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values.contiguous().numpy(), allow_pickle=False)
    return buffer.getvalue()


def _array(content: bytes, name: str) -> Tensor:
    """An array as numpy writes it; numpy's own reader would make room for whatever size the header claims."""
    stream = io.BytesIO(content)
    try:
        major, _ = np.lib.format.read_magic(stream)
        if major != 1:
            raise ValueError(f"version {major}")
        shape, by_columns, kind = np.lib.format.read_array_header_1_0(stream)
        if kind.hasobject or kind.kind not in "biuf" or by_columns:
            raise ValueError(f"values of {kind}")
        return torch.from_numpy(np.frombuffer(content[stream.tell() :], kind).reshape(shape).copy())
    except (ValueError, TypeError, OverflowError, SyntaxError, RecursionError, MemoryError) as error:
        raise UserError(f"{name}: is damaged ({shown(str(error), 120)}); convert the data again") from None


def _gray(content: bytes, name: str) -> Tensor:
    with open_picture(Encoded(name, content), "an image") as image:
        if image.mode != "L":
            raise UserError(
                f"{name}: is a picture of {image.mode}, not of one value of 8 bits a pixel; convert the data again"
            )
        return torch.from_numpy(np.array(image))
