"""Reads the JSON of the VGG Image Annotator: an export of its regions, or a project."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

from src.data.formats.annotated import Photo, Photos, load
from src.data.formats.painting import Shape, box, ellipse, number, points
from src.errors import UserError
from src.files.untrusted import shown


def photos(folder: Path) -> list[Photo]:
    """The photos of every `via_*.json` below a folder."""
    images = Photos(folder)
    found: list[Photo] = []
    for file in sorted(folder.rglob("*.json")):
        if not file.name.lower().startswith("via_"):
            continue
        content = load(file, dict)
        entries = content.get("_via_img_metadata", content)
        for entry in entries.values() if isinstance(entries, dict) else []:
            if isinstance(entry, dict) and isinstance(entry.get("filename"), str):
                image = images.find(entry["filename"], file.parent, file)
                try:
                    labels = frozenset(_label(r.get("region_attributes") or {}) for r in _regions(entry))
                except (ValueError, AttributeError) as error:
                    raise UserError(f"{file}: {image.name}: {shown(str(error))}; correct it") from None
                found.append(Photo(image, file, labels, functools.partial(_shapes, entry)))
    return found


def _shapes(entry: dict[str, Any], height: int, width: int) -> list[Shape]:
    return [shape for region in _regions(entry) if (shape := _shape(region)) is not None]


def _regions(entry: dict[str, Any]) -> list[Any]:
    regions = entry.get("regions") or []
    return list(regions.values()) if isinstance(regions, dict) else list(regions)  # VIA 1 wrote a mapping of numbers


def _shape(region: dict[str, Any]) -> Shape | None:
    given, label = region["shape_attributes"], _label(region.get("region_attributes") or {})
    kind = given["name"]
    if kind == "point":
        return None
    if kind in ("polygon", "polyline"):
        xs, ys = given["all_points_x"], given["all_points_y"]
        at = points(list(zip(xs, ys, strict=True)), 3 if kind == "polygon" else 2)
        return Shape(label, [at]) if kind == "polygon" else Shape(label, lines=[at])
    if kind == "rect":
        x, y = number(given["x"]), number(given["y"])
        return Shape(label, [box(x, y, x + number(given["width"]), y + number(given["height"]))])
    x, y = number(given["cx"]), number(given["cy"])
    if kind == "circle":
        radius = number(given["r"])
        return Shape(label, [ellipse(x, y, radius, radius)])
    if kind == "ellipse":
        theta = math.degrees(number(given.get("theta", 0)))
        return Shape(label, [ellipse(x, y, number(given["rx"]), number(given["ry"]), theta)])
    raise ValueError(f"a region of the kind {str(kind)[:40]!r} cannot be painted")


def _label(attributes: dict[str, Any]) -> str:
    """The class: the only attribute, or the one that is called as one; of checkboxes the only ticked one."""
    usual = ("class", "label", "name", "type", "category")
    key = next((k for k in attributes if k.lower() in usual), None) or (
        next(iter(attributes)) if len(attributes) == 1 else None
    )
    if key is None:
        raise ValueError(f"a region has the attributes {sorted(attributes)[:5]}, none of which is called class")
    value = attributes[key]
    ticked = [name for name, on in value.items() if on] if isinstance(value, dict) else [value]
    if len(ticked) != 1 or not isinstance(ticked[0], str) or not ticked[0].strip():
        raise ValueError(f"a region has {str(value)[:40]!r} for its {key[:40]}; it should be one class")
    return ticked[0].strip()
