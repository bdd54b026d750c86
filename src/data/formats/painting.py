"""Paints the shapes that people drew over a photo into its mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Points = list[tuple[float, float]]  # x, y in pixels of the upright photo

_FARTHEST = 1_000_000.0  # a coordinate that is no nonsense
_MOST_POINTS = 200_000  # of one shape
_ROUND = 64  # corners of a circle


@dataclass(frozen=True)
class Shape:
    """One thing that was drawn.

    Attributes:
        label: what it was called.
        outlines: polygons that are filled.
        holes: polygons that are taken out of them.
        lines: polylines, a pixel wide.
        mask: bool [h, w], painted with its upper left corner at `corner`.
        corner: row and column.
    """

    label: str
    outlines: list[Points] = field(default_factory=list)
    holes: list[Points] = field(default_factory=list)
    lines: list[Points] = field(default_factory=list)
    mask: npt.NDArray[np.bool_] | None = None
    corner: tuple[int, int] = (0, 0)


def points(given: Any, at_least: int = 3) -> Points:
    """Pairs of x and y as they stand in a file.

    Raises:
        ValueError: they are no pairs of finite numbers, lie out of any photo, are too few or too many.
    """
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ValueError("its points are no list")
    if not at_least <= len(given) <= _MOST_POINTS:
        raise ValueError(f"it has {len(given)} points; {at_least} to {_MOST_POINTS:,} can be drawn")
    return [_point(pair) for pair in given]


def number(given: Any) -> float:
    """A finite number of a sane size.

    Raises:
        ValueError: it is none.
    """
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise ValueError(f"{str(given)[:40]!r} is no number")
    if not (math.isfinite(given) and abs(given) <= _FARTHEST):
        raise ValueError(f"the coordinate {str(given)[:40]} lies in no photo")
    return float(given)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0.0) -> Points:
    """The outline of an ellipse of these half axes, turned clockwise around its centre."""
    turns = [2 * math.pi * k / _ROUND for k in range(_ROUND)]
    return turned([(x + across * math.cos(t), y + down * math.sin(t)) for t in turns], (x, y), degrees)


def turned(outline: Points, around: tuple[float, float], degrees: float) -> Points:
    """An outline, turned clockwise as it is seen (y goes down)."""
    if not degrees:
        return outline
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    x0, y0 = around
    return [(x0 + (x - x0) * cosine - (y - y0) * sine, y0 + (x - x0) * sine + (y - y0) * cosine) for x, y in outline]


def paint(mask: npt.NDArray[np.uint8], shape: Shape, value: int) -> None:
    """Paints a shape into a mask uint8 [H, W], over what is there; what lies outside is cut off."""
    if shape.outlines or shape.lines:
        canvas = Image.new("L", (mask.shape[1], mask.shape[0]))
        draw = ImageDraw.Draw(canvas)
        for outline in shape.outlines:
            draw.polygon(outline, fill=1, outline=1)
        for hole in shape.holes:
            draw.polygon(hole, fill=0, outline=1)
        for line in shape.lines:
            draw.line(line, fill=1)
        mask[np.asarray(canvas) > 0] = value
    if shape.mask is not None:
        top, left = shape.corner
        inside = shape.mask[max(0, -top) : max(0, mask.shape[0] - top), max(0, -left) : max(0, mask.shape[1] - left)]
        part = mask[max(0, top) : max(0, top) + inside.shape[0], max(0, left) : max(0, left) + inside.shape[1]]
        part[inside] = value


def _point(pair: Any) -> tuple[float, float]:
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) < 2:
        raise ValueError("a point is no pair of numbers")
    return number(pair[0]), number(pair[1])
