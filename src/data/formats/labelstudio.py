"""Reads Label Studio's JSON export: polygons, rectangles, ellipses and brush strokes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data.formats.annotated import Photo, Photos, load
from src.data.formats.painting import Points, Shape, box, ellipse, number, points, turned

_KINDS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels")


def photos(folder: Path) -> list[Photo]:
    """The photos of every JSON list of tasks in a folder, as exported in full ("JSON") or in short ("JSON-MIN"). Tasks that
    nobody has labelled are left out."""
    images = Photos(folder)
    found: list[Photo] = []
    for file in sorted(folder.glob("*.json")):
        for task in load(file, list):
            if not isinstance(task, dict):
                continue
            name, results = _task(task)
            if name is not None and results is not None:
                image, shapes = images.find(name, folder, file), functools.partial(_shapes, results)
                found.append(Photo(image, file, frozenset(label for _, _, label in _drawn(results)), shapes))
    return found


def _task(task: dict[str, Any]) -> tuple[str | None, list[Any] | None]:
    """The photo's name, and what was drawn; None where nothing was."""
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    assert isinstance(data, dict)
    texts = [data[key] for key in ("image", "img", "photo") if isinstance(data.get(key), str)]
    texts += [
        value for key, value in data.items() if isinstance(value, str) and "." in value[-6:] and key != "created_at"
    ]
    name = texts[0] if texts else None
    if "annotations" in task or "completions" in task:
        done = [a for a in task.get("annotations") or task.get("completions") or [] if not a.get("was_cancelled")]
        return name, done[-1].get("result") if done else None
    short = [value for value in task.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return name, [item for value in short for item in value] or None


def _shapes(results: list[Any], height: int, width: int) -> list[Shape]:
    found: list[Shape] = []
    for result, kind, label in _drawn(results):
        size = (result.get("original_height", height), result.get("original_width", width))
        if size != (height, width):
            raise ValueError(f"it was drawn over a photo of {size[1]}x{size[0]}, and this one is {width}x{height}")
        found.append(_shape(label, kind, result.get("value", result), height, width))
    return found


def _drawn(results: list[Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Each thing that was drawn, its kind and its label; choices, relations and key points are none."""
    for result in results:
        value = result.get("value", result) if isinstance(result, dict) else None
        if not isinstance(value, dict):
            continue
        kind = next((kind for kind in _KINDS if kind in value), None)
        if kind is not None and isinstance(value[kind], list):
            for label in value[kind]:
                yield result, kind, str(label)


def _shape(label: str, kind: str, value: dict[str, Any], height: int, width: int) -> Shape:
    if kind == "brushlabels":
        return Shape(label, mask=brush(value["rle"], height, width))
    across, down = width / 100, height / 100  # the file has per cent

    def scaled(outline: Points) -> Points:
        return [(x * across, y * down) for x, y in outline]

    if kind == "polygonlabels":
        return Shape(label, [scaled(points(value["points"]))])
    x, y, degrees = number(value["x"]) * across, number(value["y"]) * down, number(value.get("rotation", 0))
    if kind == "rectanglelabels":
        right, bottom = x + number(value["width"]) * across, y + number(value["height"]) * down
        return Shape(label, [turned(box(x, y, right, bottom), (x, y), degrees)])
    return Shape(label, [ellipse(x, y, number(value["radiusX"]) * across, number(value["radiusY"]) * down, degrees)])


def brush(code: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    """A brush's strokes, bool [H, W], of Label Studio's run-length code of the bytes of an RGBA picture.

    The code is a stream of bits: 32 for the number of values, 5 for a value's bits less one, four times 4 for the bits of
    the four kinds of lengths less one; then blocks: a bit that says whether one value is repeated, two for the kind of
    length, the length less one, and the value or the values.

    Raises:
        ValueError: it is no such code of a picture of this size.
    """
    if not isinstance(code, list) or not all(type(byte) is int and 0 <= byte <= 255 for byte in code):
        raise ValueError("the code of its brush is no list of bytes")
    bits = np.unpackbits(np.array(code, np.uint8))
    at = 0

    def take(count: int) -> int:
        nonlocal at
        if at + count > len(bits):
            raise ValueError("the code of its brush ends early")
        value = int("".join(map(str, bits[at : at + count].tolist())), 2)
        at += count
        return value

    total, word = take(32), take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    if total != height * width * 4 or word > 8:
        raise ValueError(f"the code of its brush is of {total:,} values, not of {width}x{height} pixels")
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        is_repeated = take(1)
        end = done + 1 + take(lengths[take(2)])
        if end > total:
            raise ValueError("the code of its brush goes beyond the picture")
        if is_repeated:
            values[done:end] = take(word)
        else:
            count = (end - done) * word
            if at + count > len(bits):
                raise ValueError("the code of its brush ends early")
            words = np.zeros((end - done, 8), np.uint8)
            words[:, 8 - word :] = bits[at : at + count].reshape(-1, word)
            values[done:end] = np.packbits(words, axis=1)[:, 0]
            at += count
        done = end
    return values.reshape(height, width, 4)[..., 3] > 0
