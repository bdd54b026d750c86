"""Segments photos: whole as they are evaluated, or window by window where one is too large for that."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from src.data.windows import OVERLAP, SIDE, WHOLE, Window, parts
from src.errors import memory_ran_out
from src.files.pictures import save_picture
from src.inference.predictor import Predictor
from src.inference.scenes import gray_maps, half_probabilities
from src.inference.vectors import save_vectors
from src.inference.windows import InMemory, Outputs
from src.inference.writing import ProbabilityFile, Writing, probability_file, save_mask, save_overlay

_log = logging.getLogger(__name__)

Maps = dict[str, npt.NDArray[np.generic]]  # of one image, by kind: "mask" and uncertainty uint8, tasks' float32, [H, W]
# Takes the probabilities float16 [K, h, w] of a part of one image.
Put = Callable[[Window, npt.NDArray[np.float16]], None]


@dataclass(frozen=True)
class Cut:
    """How a model that takes images whole is given one that is too large.

    Attributes:
        side: of windows, in pixels; None takes an image whole, and in windows of `SIDE` only if it has more than `WHOLE` pixels
            or memory runs out.
        overlap: of windows, in pixels.
    """

    side: int | None = None
    overlap: int = OVERLAP


@torch.inference_mode()
def predict_maps(
    model: Predictor, device: torch.device, images: Tensor, cut: Cut = Cut(), *, names: Sequence[str] = ("an image",),
    uncertainty: bool = False, puts: Sequence[Put] = (),
) -> list[Maps]:  # fmt: skip
    """The masks and other maps of raw images [B, C, H, W] of one size, which lie in the host's memory.

    Args:
        names: what messages call them.
        uncertainty: give uncertainty maps too, uint8, 255 is 1.
        puts: for each image, what takes its probabilities; empty where they are not wanted.
    """
    pixels = images.shape[-2] * images.shape[-1]
    windows = model.inference.windows
    if windows or (cut.side is None and pixels <= WHOLE):
        try:
            return _maps(model, device, images if windows else images.to(device), uncertainty, puts)
        except (MemoryError, RuntimeError) as error:
            if windows or not memory_ran_out(error) or max(images.shape[-2:]) <= SIDE:
                raise
    # not inside the handler: the error holds what was computed
    if cut.side is None:
        why = "memory ran out" if pixels <= WHOLE else f"more than {WHOLE / 1e6:.1f} million are too many at once"
        for name in names:
            _log.info("%s: %.1f million pixels are done in windows of %d (%s)", name, pixels / 1e6, SIDE, why)
    return _in_windows(model, device, images, cut.side or SIDE, cut.overlap, uncertainty, puts)


def _strips(model: Predictor, device: torch.device, images: Tensor) -> Iterator[tuple[int, Outputs]]:
    """What is predicted, strip by strip; of large images in windows of their own size a row of windows at a time."""
    large = images.shape[-2] * images.shape[-1] > WHOLE
    if model.inference.windows and large and not model.inference.resizes:
        return model.predicted_scene(InMemory(images, device), InMemory(images, device, mirrored=True))
    return model.predicted(images)


def _maps(model: Predictor, device: torch.device, images: Tensor, uncertainty: bool, puts: Sequence[Put]) -> list[Maps]:
    found: list[Maps] = [{} for _ in images]
    for top, outputs in _strips(model, device, images):
        of_images: list[Maps] = [dict(maps) for maps in gray_maps(model, outputs, uncertainty)]
        for task, of_task in model.task_maps(outputs).items():
            for maps, each in zip(of_images, of_task.float().cpu().numpy(), strict=True):
                maps[task] = each
        for of_image, maps in zip(found, of_images, strict=True):
            for kind, values in maps.items():
                if len(values) == images.shape[-2]:
                    of_image[kind] = values
                else:
                    whole = of_image.setdefault(kind, np.empty(tuple(images.shape[-2:]), values.dtype))
                    whole[top : top + len(values)] = values
        if puts:
            for put, chances in zip(puts, half_probabilities(model, outputs), strict=True):
                put(Window(top, 0, *chances.shape[1:]), chances)
    return found


def _in_windows(
    model: Predictor, device: torch.device, images: Tensor, side: int, overlap: int, uncertainty: bool,
    puts: Sequence[Put],
) -> list[Maps]:  # fmt: skip
    """As `_maps`, each pixel from the window in which it lies farther inside."""
    height, width = images.shape[-2:]
    whole: list[Maps] = [{} for _ in images]
    for part in parts(height, width, side, overlap):
        read, keep = part.read, part.keep
        raw = images[..., read.top : read.top + read.height, read.left : read.left + read.width]
        top, left = keep.top - read.top, keep.left - read.left
        kept = [_kept(put, keep, Window(top, left, keep.height, keep.width)) for put in puts]
        for of_image, maps in zip(whole, _maps(model, device, raw.to(device), uncertainty, kept), strict=True):
            for kind, values in maps.items():
                target = of_image.setdefault(kind, np.empty((height, width), values.dtype))
                target[keep.top : keep.top + keep.height, keep.left : keep.left + keep.width] = values[
                    top : top + keep.height, left : left + keep.width
                ]
    return whole


def _kept(put: Put, keep: Window, within: Window) -> Put:
    """Of the strips of a window gives on what is kept of it: `within` the window, `keep` in the image."""

    def given(area: Window, values: npt.NDArray[np.float16]) -> None:
        first, end = max(area.top, within.top), min(area.top + area.height, within.top + within.height)
        if first < end:
            rows, columns = slice(first - area.top, end - area.top), slice(within.left, within.left + within.width)
            put(Window(keep.top + first - within.top, keep.left, end - first, keep.width), values[:, rows, columns])

    return given


@dataclass(frozen=True)
class Photo:
    """A photo that was read.

    Attributes:
        name: of its output.
        file: where it lies.
        image: uint8 [3, H, W].
    """

    name: str
    file: Path
    image: Tensor


def segment_photos(
    model: Predictor, device: torch.device, photos: Sequence[Photo], writing: Writing, cut: Cut
) -> list[Maps]:
    """Maps of photos of one size; their probabilities are written where those are asked for.

    Raises:
        OSError: the output cannot be written.
    """
    images = photos[0].image[None] if len(photos) == 1 else torch.stack([photo.image for photo in photos])
    with contextlib.ExitStack() as stack:
        sinks: list[ProbabilityFile] = []
        if writing.probabilities:
            for photo in photos:
                file = writing.probability(photo.name, ".png")
                shape = (model.label_set.num_classes, *map(int, photo.image.shape[1:]))
                sinks.append(stack.enter_context(probability_file(file, *shape)))
        return predict_maps(
            model, device, images, cut, names=[str(photo.file) for photo in photos], uncertainty=writing.uncertainty,
            puts=[sink.put for sink in sinks],
        )  # fmt: skip


def write_photo(maps: Maps, photo: Photo, model: Predictor, writing: Writing) -> None:
    """Writes overlays/NAME.png, uncertainty/NAME_….png (uint8, 255 is 1), TASK/NAME.tif (float32) of each further task of the
    model that is a map, outlines, and at last masks/NAME.png (class numbers, or `ids`, with the palette).

    Raises:
        OSError: the output cannot be written.
    """
    mask = maps["mask"].astype(np.uint8, copy=False)
    for kind, values in maps.items():
        if kind == "mask":
            continue
        # those of uncertainty are gray, those of tasks have their own units
        is_gray = values.dtype == np.uint8
        file = writing.uncertainty_map(photo.name, kind, ".png")
        save_picture(Image.fromarray(values), file if is_gray else writing.folder / kind / f"{photo.name}.tif")
    save_vectors(mask, model.label_set, photo.name, photo.file, writing)
    if writing.opacity is not None:
        picture = photo.image.permute(1, 2, 0).numpy()
        save_overlay(picture, mask, model.label_set, writing.opacity, writing.overlay(photo.name))
    save_mask(mask, model.label_set, writing.ids, writing.mask(photo.name, ".png"))
