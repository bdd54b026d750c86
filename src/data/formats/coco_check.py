"""Checks COCO's JSON before pycocotools' C code is given it, which writes and loops as it is told."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from src.data.readers.picture_limits import check_size
from src.errors import UserError
from src.files.untrusted import open_regular, shown

_LIMIT = 8 << 30  # bytes of a file; COCO's largest has 0.5 GB
_PERIMETER = 20_000_000  # pixels of all outlines of one thing, of which pycocotools stores five points each


def read_annotations(file: Path) -> dict[str, Any]:
    """The JSON of a regular file: lists of mappings under `images`, `annotations` and `categories`, empty where it has none.

    Raises:
        UserError: it cannot be read or is not of this form.
    """
    try:
        with open_regular(file, _LIMIT, links=True) as stream:
            content = json.load(stream)
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        reason = (shown(str(error)).strip().splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"{file}: is not in COCO's format ({reason}); fetch it again") from None
    for key in ("images", "annotations", "categories"):
        entries = content.setdefault(key, []) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"{file}: is not in COCO's format (it has no list of entries {key!r}); fetch it again")
    return dict(content)


def check_annotations(content: Mapping[str, Any], file: Path) -> None:
    """Checks ids and sizes; names of photos are checked where they are looked for, outlines when they are drawn.

    Raises:
        UserError: an id is no whole number, a size no size.
    """
    for kind, keys in (
        ("images", ("id",)),
        ("categories", ("id",)),
        ("annotations", ("id", "image_id", "category_id")),
    ):
        for place, entry in enumerate(content[kind]):
            for key in keys:
                if not _is_number(entry.get(key)):
                    value = shown(repr(entry.get(key)), 60)
                    raise UserError(
                        f"{file}: is not in COCO's format (entry {place} of {kind} has {key} {value}, not a whole number); "
                        "correct or replace it"
                    )
    for entry in content["images"]:
        height, width = entry.get("height"), entry.get("width")
        if not (_is_number(height) and _is_number(width) and height > 0 and width > 0):
            raise UserError(
                f"{file}: image {entry['id']} is {shown(repr(width), 60)}x{shown(repr(height), 60)}, which is no size; "
                "correct or replace the file"
            )
        check_size(width, height, f"{file}: image {entry['id']}")
    for entry in content["categories"]:
        if not isinstance(entry.get("name"), str):
            raise UserError(f"{file}: category {entry['id']} has no name; correct or replace the file")
    for entry in content["annotations"]:
        area = entry.get("area", 0)
        if area is not None and (not isinstance(area, int | float) or not math.isfinite(area)):
            raise UserError(f"{file}: annotation {entry['id']} has the area {shown(repr(area), 60)}; correct it")


def plain_name(name: Any, file: Path) -> str:
    """The name of a photo or PNG below its folder.

    Raises:
        UserError: it is none, or leads out.
    """
    path = PureWindowsPath(name) if isinstance(name, str) else PureWindowsPath("..")
    if not path.name or path.is_absolute() or path.drive or path.root or ".." in path.parts or "\0" in str(name):
        raise UserError(
            f"{file}: names the file {shown(repr(name), 80)}, which does not lie below the folder of the images; refused"
        )
    return str(name)


def check_segmentation(given: Any, height: int, width: int) -> None:
    """Checks an outline: polygons whose points lie in or near the image, or a run-length code that fills it.

    Raises:
        ValueError: it is neither, in words for a message.
    """
    if isinstance(given, list):
        _check_polygons(given, height, width)
    elif isinstance(given, dict):
        _check_rle(given, height, width)
    else:
        raise ValueError(f"it is a {type(given).__name__}, neither polygons nor a run-length code")


def _check_polygons(given: list[Any], height: int, width: int) -> None:
    around = 0.0
    for polygon in given:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon needs three points of x and y")
        if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in polygon):
            raise ValueError("a polygon has points that are no numbers")
        try:
            points = np.array(polygon, np.float64).reshape(-1, 2)
        except OverflowError:
            points = np.full((1, 2), np.inf)
        if not np.isfinite(points).all():
            raise ValueError("a polygon has points that are no finite numbers")
        size = np.array([width, height])
        far = ((points < -size) | (points > 2 * size)).any(axis=1)
        if far.any():
            x, y = points[far][0]
            raise ValueError(f"it has a point at {x:g},{y:g}, far outside of the image of {width}x{height}")
        around += float(np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum())
    if around > min(4 * height * width + 1000, _PERIMETER):
        raise ValueError(f"its outlines are {around:,.0f} pixels long in an image of {width}x{height}")


def _check_rle(given: dict[str, Any], height: int, width: int) -> None:
    size, counts = given.get("size"), given.get("counts")
    if not isinstance(size, list) or not all(map(_is_number, size)) or size != [height, width]:
        raise ValueError(f"its size is {shown(str(size), 60)}, the image's {[height, width]}")
    if isinstance(counts, str):
        counts = _runs(counts, height * width)
    if not isinstance(counts, list) or not all(_is_number(count) and count >= 0 for count in counts):
        raise ValueError("its counts are no whole numbers from 0")
    if sum(counts) != height * width:
        raise ValueError(
            f"its counts add up to {shown(str(sum(counts)), 30)}, not to the {height * width} pixels of the image"
        )


def _runs(text: str, most: int) -> list[int]:
    """The counts that COCO's compressed code stands for: five bits a character, the sixth says whether more follow; from
    the third on each is the difference to the one before the last."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("its run-length code has characters or numbers that it cannot have")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        if not 0 <= counts[-1] <= most:
            raise ValueError("its run-length code has a run that is longer than the image")
        value = shift = 0
    if shift:
        raise ValueError("its run-length code is cut off")
    return counts


def _is_number(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**62
