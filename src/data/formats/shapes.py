"""`Shapes` draws textured shapes that overlap on the fly, so that a first run needs no download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from src.data.labels import LabelSet
from src.seeding import derive

Array = npt.NDArray[np.floating]
Outline = Callable[[Array, Array], Array]

_COLORS = {
    "background": (70, 70, 70),
    "disk": (230, 60, 60),
    "rectangle": (60, 130, 240),
    "ring": (170, 80, 210),
    "line": (60, 210, 220),
    "cross": (250, 140, 40),
}
_NAMES = tuple(_COLORS)
_FREQUENCY = np.array([1.0, 1.0, 1.0, 1.5, 0.4])  # of the shapes; the cross is rare on purpose
_FREQUENCY /= _FREQUENCY.sum()

_TILT = 0.2  # largest turn of a shape from upright, in radians; lines lie anyhow
_CONTRAST = 0.10  # of textures
_FEWEST, _MOST = 4, 8  # shapes in a scene
_SMALLEST, _LARGEST = 0.11, 0.22  # radius of a shape, as a share of the image's shorter side
_RECOGNISABLE = 0.35  # a shape of which less than this share is seen is void: nobody could name it


@dataclass(frozen=True)
class Scene:
    """A drawn scene.

    Attributes:
        image: uint8 [H, W, 3].
        owner: uint8 [H, W]; 0 is the background, i the i-th shape from the back. It is the painter's order: the larger,
            the nearer.
        border: bool [H, W]; pixels that a visible outline runs through, so that they belong to two owners.
        classes: uint8 [shapes + 1]; the class of each owner, or the ignore index where too little of it is seen.
    """

    image: npt.NDArray[np.uint8]
    owner: npt.NDArray[np.uint8]
    border: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.uint8]


class Shapes:
    """Procedural scenes with six classes: a background and five kinds of shape, one of them rare, one thin.

    Colours, textures, lighting and noise are drawn from the same distribution for every class, the background included,
    so only the outline tells what a pixel is. Nearer shapes hide farther ones. The void band on outlines and shapes that
    are nearly hidden carry the ignore index.

    A sample is a function of (seed, split, index): nothing is stored, splits cannot overlap, and a longer split begins
    with the shorter one.

    Args:
        split: which of the three independent streams.
        seed: names the data set; it is no part of the run's seed, so that runs with different seeds are comparable.
        train_length, val_length, test_length: images in each split.
        height, width: of an image, in pixels; shapes grow with the shorter side.
        void_width: width of the void band, in pixels; 0 for none.
    """

    label_set = LabelSet(_NAMES, tuple(_COLORS.values()))
    channels = 3
    intensity = (0.0, 255.0)
    computed = True

    def __init__(
        self,
        split: Literal["train", "val", "test"],
        *,
        seed: int = 0,
        train_length: PositiveInt = 2000,
        val_length: PositiveInt = 200,
        test_length: PositiveInt = 200,
        height: Annotated[int, Field(ge=32)] = 64,
        width: Annotated[int, Field(ge=32)] = 96,
        void_width: NonNegativeFloat = 1.0,
    ) -> None:
        self.split = split
        self.seed = seed
        self.length = {"train": train_length, "val": val_length, "test": test_length}[split]
        self.height = height
        self.width = width
        self.void_width = void_width

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"{self.split}_{index:05d}"

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Draws a sample: image uint8 [3, H, W] and mask uint8 [H, W].

        Raises:
            IndexError: the split has no such index.
        """
        scene = self.scene(index)
        mask = scene.classes[scene.owner]
        mask[scene.border] = self.label_set.ignore_index
        return torch.from_numpy(scene.image.transpose(2, 0, 1).copy()), torch.from_numpy(mask)

    def depth(self, index: int) -> Tensor:
        """Distances float32 [H, W] in 0…1: 1 for the background, the nearer the smaller."""
        scene = self.scene(index)
        far = 1 - torch.arange(len(scene.classes)) / len(scene.classes)
        return far.float()[torch.from_numpy(scene.owner).long()]

    def scene(self, index: int) -> Scene:
        """Draws a sample, with the painter's order kept.

        Raises:
            IndexError: the split has no such index.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"shapes: index {index} is outside of split {self.split!r} with {self.length} images")
        rng = np.random.Generator(np.random.PCG64(derive(self.seed, "shapes", self.split, index)))
        return _draw(rng, self.height, self.width, self.void_width)


def _draw(rng: np.random.Generator, height: int, width: int, void_width: float) -> Scene:
    side = min(height, width)
    count = int(rng.integers(_FEWEST, _MOST + 1))
    kinds = rng.choice(len(_OUTLINES), size=count, p=_FREQUENCY)
    palette = _palette(rng, count + 1)
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None, :]

    canvas = _paint(rng, palette[0], x, y, side)
    owner = np.zeros((height, width), np.uint8)
    border = np.zeros((height, width), np.bool_)
    areas = np.ones(count + 1)
    centers: list[tuple[float, float]] = []
    for i, kind in enumerate(kinds, start=1):
        radius = side * _SMALLEST * (_LARGEST / _SMALLEST) ** rng.random()
        center = _spread(rng, centers, height, width)
        centers.append(center)
        outline, reach = _OUTLINES[kind](rng, radius, side)
        top, left = (max(0, int(c - reach - 2)) for c in center)
        bottom, right = int(center[0] + reach + 3), int(center[1] + reach + 3)
        box = np.s_[top:bottom, left:right]
        by, bx = y[top:bottom], x[:, left:right]
        angle = rng.uniform(0, np.pi) if _NAMES[kind + 1] == "line" else rng.uniform(-_TILT, _TILT)
        distance = outline(*_turned(bx - center[1], by - center[0], angle))
        inside = distance < 0
        alpha = np.clip(0.5 - distance, 0, 1)[..., None]
        canvas[box] += alpha * (_paint(rng, palette[i], bx, by, side) - canvas[box])
        owner[box][inside] = i
        border[box] = (border[box] & ~inside) | (np.abs(distance) < void_width / 2)
        areas[i] = np.count_nonzero(inside)

    seen = np.bincount(owner.ravel(), minlength=count + 1) / np.maximum(areas, 1)
    seen[0] = 1
    classes = np.where(seen < _RECOGNISABLE, LabelSet.ignore_index, np.concatenate([[0], kinds + 1])).astype(np.uint8)
    return Scene(_expose(rng, canvas, x, y), owner, border, classes)


def _spread(rng: np.random.Generator, taken: list[tuple[float, float]], height: int, width: int) -> tuple[float, float]:
    """The candidate centre (y, x) that is farthest from the others: shapes overlap, but seldom bury each other."""
    candidates = rng.uniform(0.06, 0.94, (3, 2)) * (height, width)
    if not taken:
        return float(candidates[0, 0]), float(candidates[0, 1])
    gaps = np.linalg.norm(candidates[:, None] - np.array(taken)[None], axis=-1).min(axis=1)
    y, x = candidates[gaps.argmax()]
    return float(y), float(x)


# Outlines: each draws its proportions and gives a signed distance in pixels (negative inside, exact to first order at the
# outline) over coordinates u, v about the centre, and the radius of a circle that holds the shape.


def _disk(rng: np.random.Generator, radius: float, side: int) -> tuple[Outline, float]:
    return lambda u, v: np.hypot(u, v) - radius, radius


def _rectangle(rng: np.random.Generator, radius: float, side: int) -> tuple[Outline, float]:
    a, b = 0.95 * radius, 0.95 * radius * rng.uniform(0.5, 1)
    return lambda u, v: np.maximum(np.abs(u) - a, np.abs(v) - b), float(np.hypot(a, b))


def _ring(rng: np.random.Generator, radius: float, side: int) -> tuple[Outline, float]:
    half = radius * rng.uniform(0.16, 0.24)
    return lambda u, v: np.abs(np.hypot(u, v) - (radius - half)) - half, radius


def _line(rng: np.random.Generator, radius: float, side: int) -> tuple[Outline, float]:
    a, b = 1.8 * radius, side * rng.uniform(0.011, 0.02)
    return lambda u, v: np.maximum(np.abs(u) - a, np.abs(v) - b), a + b


def _cross(rng: np.random.Generator, radius: float, side: int) -> tuple[Outline, float]:
    a, b = 1.1 * radius, 1.1 * radius * rng.uniform(0.22, 0.32)

    def distance(u: Array, v: Array) -> Array:
        u, v = np.abs(u), np.abs(v)
        nearest: Array = np.minimum(np.maximum(u - a, v - b), np.maximum(u - b, v - a))
        return nearest

    return distance, float(np.hypot(a, b))


_OUTLINES = (_disk, _rectangle, _ring, _line, _cross)  # in the order of `_NAMES`


# Textures: each gives a field in 0 to 1, float32 [h, w], over a box of pixels; it mixes two colours.


def _stripes(rng: np.random.Generator, x: Array, y: Array, side: int) -> Array:
    u, _ = _turned(x, y, rng.uniform(0, 2 * np.pi))
    field: Array = np.clip(0.5 + np.sin(u * (2 * np.pi / (side * rng.uniform(0.05, 0.12)))), 0, 1)
    return field


def _checker(rng: np.random.Generator, x: Array, y: Array, side: int) -> Array:
    frequency = np.pi / (side * rng.uniform(0.03, 0.08))
    u, v = _turned(x * frequency, y * frequency, rng.uniform(0, 2 * np.pi))
    field: Array = np.clip(0.5 + 2 * np.sin(u) * np.sin(v), 0, 1)
    return field


def _gradient(rng: np.random.Generator, x: Array, y: Array, side: int) -> Array:
    u, _ = _turned(x, y, rng.uniform(0, 2 * np.pi))
    field: Array = (u - u.min()) / (np.ptp(u) + 1)
    return field


def _blotches(rng: np.random.Generator, x: Array, y: Array, side: int) -> Array:
    cell = side * rng.uniform(0.03, 0.12)
    py, px = (y - y[0, 0]) / cell, (x - x[0, 0]) / cell
    rows, columns = np.arange(int(py[-1, 0]) + 2), np.arange(int(px[0, -1]) + 2)
    values = rng.random((len(rows), len(columns)), np.float32)
    weight_y = np.maximum(0, 1 - np.abs(py - rows[None])).astype(np.float32)
    weight_x = np.maximum(0, 1 - np.abs(px - columns[:, None])).astype(np.float32)
    field: Array = weight_y @ values @ weight_x
    return field


_TEXTURES = (_stripes, _checker, _gradient, _blotches)


def _paint(rng: np.random.Generator, color: Array, x: Array, y: Array, side: int) -> Array:
    """The surface of a shape or of the background, float32 [h, w, 3]: its colour, textured."""
    delta = rng.standard_normal(3)
    delta *= rng.uniform(0.0, _CONTRAST) / np.linalg.norm(delta)
    field = _TEXTURES[rng.integers(len(_TEXTURES))](rng, x, y, side) - np.float32(0.5)
    return color + field[..., None] * delta.astype(np.float32)


def _palette(rng: np.random.Generator, count: int) -> Array:
    """Colours that can be told apart, float32 [count, 3] in 0 to 1, in random order: none is typical of a class."""
    colors = rng.uniform(0.1, 0.9, (1, 3))
    while len(colors) < count:
        candidates = rng.uniform(0.1, 0.9, (6, 3))
        gaps = np.linalg.norm(candidates[:, None] - colors[None], axis=-1).min(axis=1)
        colors = np.concatenate([colors, candidates[gaps.argmax()][None]])
    return rng.permutation(colors).astype(np.float32)


def _expose(rng: np.random.Generator, canvas: Array, x: Array, y: Array) -> npt.NDArray[np.uint8]:
    """Uneven light and sensor noise over the whole scene; uint8 [H, W, 3]."""
    u, _ = _turned(x / x.size - 0.5, y / y.size - 0.5, rng.uniform(0, 2 * np.pi))
    light = 1 + np.float32(rng.uniform(0, 0.5)) * u
    noise = rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(0.005, 0.02))
    exposed: Array = np.clip(canvas * light[..., None] + noise, 0, 1)
    return (exposed * 255).astype(np.uint8)


def _turned(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    c, s = float(np.cos(angle)), float(np.sin(angle))
    return c * x + s * y, c * y - s * x
