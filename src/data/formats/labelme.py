"""Reads labelme's JSON files, one beside each photo."""

from __future__ import annotations

import base64
import functools
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.data.formats.annotated import Photo, Photos, load
from src.data.formats.painting import Shape, box, ellipse, number, points

_POINTS = ("point", "points")
_MASK_PIXELS = 1 << 28


def photos(folder: Path) -> list[Photo]:
    """The photos below a folder that have a labelme file; other JSON files are passed over."""
    images = Photos(folder)
    found: list[Photo] = []
    for file in sorted(folder.rglob("*.json")):
        if file.name.startswith("."):
            continue
        content = load(file, dict)
        if not isinstance(content.get("shapes"), list):
            continue
        name = content.get("imagePath")
        image = images.find(name if isinstance(name, str) and name else f"{file.stem}.jpg", file.parent, file)
        shapes = [shape for shape in content["shapes"] if isinstance(shape, dict)]
        labels = frozenset(str(s.get("label")) for s in shapes if s.get("shape_type") not in _POINTS)
        found.append(Photo(image, file, labels, functools.partial(_shapes, file)))
    return found


def _shapes(file: Path, height: int, width: int) -> list[Shape]:
    content = load(file, dict)
    stated = (content.get("imageHeight"), content.get("imageWidth"))
    if None not in stated and stated != (height, width):
        raise ValueError(f"it was drawn over a photo of {stated[1]}x{stated[0]}, and this one is {width}x{height}")
    return [shape for given in content["shapes"] if (shape := _shape(given)) is not None]


def _shape(given: dict[str, Any]) -> Shape | None:
    label, kind = str(given["label"]), given.get("shape_type") or "polygon"
    if kind in _POINTS:
        return None
    if kind in ("line", "linestrip"):
        return Shape(label, lines=[points(given["points"], 2)])
    if kind == "polygon":
        return Shape(label, [points(given["points"])])
    at = points(given["points"], 2)
    (x0, y0), (x1, y1) = at[0], at[1]
    if kind == "rectangle":
        return Shape(label, [at if len(at) == 4 else box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))])
    if kind == "circle":
        radius = number(math.hypot(x1 - x0, y1 - y0))
        return Shape(label, [ellipse(x0, y0, radius, radius)])
    if kind == "mask":
        png = base64.b64decode(given["mask"], validate=True)
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.width * image.height > _MASK_PIXELS:
                raise ValueError("its mask is larger than any photo")
            return Shape(label, mask=np.asarray(image.convert("L")) > 0, corner=(round(y0), round(x0)))
    raise ValueError(f"a shape of the kind {str(kind)[:40]!r} cannot be painted")
