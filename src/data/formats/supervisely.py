"""Reads a Supervisely project: `meta.json`, and `ann/` and `img/` in each of its data sets."""

from __future__ import annotations

import base64
import functools
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.data.formats.annotated import Photo, Photos, load
from src.data.formats.painting import Shape, box, number, points

_POINTS = ("point", "graph")
_UNPACKED = 1 << 26  # bytes of one bitmap's PNG


def photos(folder: Path) -> list[Photo]:
    """The photos of every `ann` folder below a folder."""
    images = Photos(folder)
    found: list[Photo] = []
    for file in sorted(folder.glob("**/ann/*.json")):
        # img/NAME.jpg has ann/NAME.jpg.json; projects of the old form leave the suffix out.
        name, beside = file.stem, file.parent.parent / "img"
        if not (beside / name).is_file():
            name = next((image.name for image in sorted(beside.glob("*")) if image.stem == file.stem), name)
        objects = [o for o in load(file, dict).get("objects") or [] if isinstance(o, dict)]
        labels = frozenset(str(o.get("classTitle")) for o in objects if o.get("geometryType") not in _POINTS)
        found.append(Photo(images.find(name, beside, file), file, labels, functools.partial(_shapes, file)))
    return found


def _shapes(file: Path, height: int, width: int) -> list[Shape]:
    content = load(file, dict)
    size = content.get("size") or {}
    if size and (size.get("height"), size.get("width")) != (height, width):
        raise ValueError(
            f"it was drawn over a photo of {size.get('width')}x{size.get('height')}, this one is {width}x{height}"
        )
    return [shape for given in content["objects"] if (shape := _shape(given, height * width)) is not None]


def _shape(given: dict[str, Any], pixels: int) -> Shape | None:
    label, kind = (
        str(given["classTitle"]),
        given.get("geometryType") or ("bitmap" if given.get("bitmap") else "polygon"),
    )
    if kind in _POINTS:
        return None
    if kind == "bitmap":
        bitmap = given["bitmap"]
        left, top = bitmap["origin"]
        return Shape(label, mask=_unpacked(bitmap["data"], pixels), corner=(round(number(top)), round(number(left))))
    exterior, interior = given["points"]["exterior"], given["points"].get("interior") or []
    if kind == "polygon":
        return Shape(label, [points(exterior)], [points(hole) for hole in interior])
    if kind == "line":
        return Shape(label, lines=[points(exterior, 2)])
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points(exterior, 2)
        return Shape(label, [box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))])
    raise ValueError(f"an object of the kind {str(kind)[:40]!r} cannot be painted")


def _unpacked(data: str, pixels: int) -> npt.NDArray[np.bool_]:
    """The bitmap: a PNG, deflated, in base64; its pixels above 0, or that are not transparent."""
    unpacker = zlib.decompressobj()
    try:
        png = unpacker.decompress(base64.b64decode(data, validate=True), _UNPACKED)
    except zlib.error as error:
        raise ValueError(f"a bitmap is damaged ({error})") from None
    if unpacker.unconsumed_tail:
        raise ValueError("a bitmap unpacks to more than any photo's")
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        if image.width * image.height > pixels:
            raise ValueError(f"a bitmap of {image.width}x{image.height} is larger than its photo")
        alpha = image.mode in ("RGBA", "LA") or "transparency" in image.info
        return np.asarray(image.convert("RGBA"))[..., 3] > 0 if alpha else np.asarray(image.convert("L")) > 0
