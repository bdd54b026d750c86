"""Pictures of images and masks, in the label set's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from src.data.labels import LabelSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = npt.NDArray[np.uint8]  # [H, W, 3]
_VOID = (0, 0, 0)
_NUMBERED = 30  # classes up to which a confusion matrix has figures in its squares
_WRONG, _RIGHT = (230, 40, 40), (225, 225, 225)


def as_picture(image: npt.NDArray[np.generic], intensity: tuple[float, float]) -> Picture:
    """A raw image [C, H, W] as RGB uint8 [H, W, 3]; of other channel counts the first three or the first is shown."""
    low, high = intensity
    shown = image[:3] if len(image) >= 3 else np.repeat(image[:1], 3, axis=0)
    scaled = (np.clip(shown.astype(np.float32), low, high) - low) / (high - low) * 255
    return np.ascontiguousarray(scaled.round().astype(np.uint8).transpose(1, 2, 0))


def colored(mask: npt.NDArray[np.integer], labels: LabelSet) -> Picture:
    """A mask [H, W] in its classes' colours; ignored pixels are black."""
    return labels.palette()[mask.astype(np.uint8)]


def overlay(picture: Picture, mask: npt.NDArray[np.integer], labels: LabelSet, opacity: float = 0.5) -> Picture:
    """The mask's colours over the picture; ignored pixels show the picture."""
    blend = picture * np.float32(1 - opacity) + colored(mask, labels) * np.float32(opacity)
    blended: Picture = np.rint(blend, out=blend).astype(np.uint8)
    hidden = mask >= labels.num_classes
    if hidden.any():
        blended[hidden] = picture[hidden]
    return blended


def errors(prediction: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], labels: LabelSet) -> Picture:
    """Wrong pixels red, right ones light, ignored ones black."""
    wrong = np.where((prediction != truth)[..., None], _WRONG, _RIGHT)
    return np.where((truth == labels.ignore_index)[..., None], _VOID, wrong).astype(np.uint8)


def heat(values: npt.NDArray[np.floating]) -> Picture:
    """A map [H, W] in 0…1 from black over violet and orange to light yellow (matplotlib's inferno)."""
    from matplotlib import colormaps

    return np.ascontiguousarray(colormaps["inferno"](np.clip(values, 0, 1), bytes=True)[..., :3])


def comparison(
    picture: Picture,
    truth: npt.NDArray[np.integer],
    prediction: npt.NDArray[np.integer],
    labels: LabelSet,
    maps: Mapping[str, npt.NDArray[np.floating]] | None = None,
) -> Picture:
    """Two rows, image | truth and prediction | errors, and rows of two maps [H, W] in 0…1 if there are any, each named,
    above a legend."""
    parts = {
        "image": picture,
        "truth": colored(truth, labels),
        "prediction": colored(prediction, labels),
        "errors": errors(prediction, truth, labels),
        **{title: heat(values) for title, values in (maps or {}).items()},
    }
    tiles = _tiles(parts)
    if len(tiles) % 2:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.concatenate(pair, axis=1) for pair in zip(tiles[::2], tiles[1::2], strict=True)]
    return np.concatenate([*rows, legend(labels, rows[0].shape[1])], axis=0)


def side_by_side(parts: Mapping[str, Picture], labels: LabelSet) -> Picture:
    """Pictures of one size in a row, each named, above a legend."""
    row = np.concatenate(_tiles(parts), axis=1)
    return np.concatenate([row, legend(labels, row.shape[1])], axis=0)


def _tiles(parts: Mapping[str, Picture]) -> list[Picture]:
    zoom = max(1, round(240 / next(iter(parts.values())).shape[0]))
    return [_titled(np.kron(p, np.ones((zoom, zoom, 1), np.uint8)), title) for title, p in parts.items()]


def legend(labels: LabelSet, width: int) -> Picture:
    """The classes' names beside their colours, in rows as wide as `width`."""
    font = ImageFont.load_default(13)
    entries = [*zip(labels.names, labels.colors, strict=True), ("ignored", _VOID)]
    places: list[tuple[int, int]] = []
    x = y = 6
    for name, _ in entries:
        length = 26 + int(font.getlength(name)) + 12
        if x + length > width and x > 6:
            x, y = 6, y + 20
        places.append((x, y))
        x += length
    canvas = Image.new("RGB", (width, y + 22), "white")
    draw = ImageDraw.Draw(canvas)
    for (name, color), (left, top) in zip(entries, places, strict=True):
        draw.rectangle((left, top, left + 18, top + 13), fill=tuple(color), outline="black")
        draw.text((left + 23, top - 1), name, fill="black", font=font)
    return np.asarray(canvas)


def confusion_figure(matrix: npt.NDArray[np.integer], names: Sequence[str]) -> Figure:
    """A confusion matrix [K, K] as a matplotlib figure: each row (truth) as shares of its pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    numbered = len(names) <= _NUMBERED
    # Of many classes a square is as small as its name: 150 at full size would be 60 megapixels after each validation.
    side = 2.2 + (0.5 * len(names) if numbered else max(0.5 * _NUMBERED, 0.12 * len(names)))
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 10 if numbered else 6
    axes.set_xticks(
        range(len(names)), names, rotation=60 if numbered else 90, ha="right" if numbered else "center", fontsize=size
    )
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    if numbered:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                axes.text(column, row, f"{share * 100:.0f}", ha="center", va="center", fontsize=8,
                          color="white" if share > 0.5 else "black")  # fmt: skip
    axes.set_title("share of the true class's pixels, %")
    return figure


def as_pixels(figure: Figure) -> Picture:
    """A matplotlib figure as pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _titled(picture: Picture, title: str) -> Picture:
    canvas = Image.new("RGB", (picture.shape[1] + 4, picture.shape[0] + 22), "white")
    canvas.paste(Image.fromarray(picture), (2, 20))
    ImageDraw.Draw(canvas).text((4, 2), title, fill="black", font=ImageFont.load_default(14))
    return np.asarray(canvas)
