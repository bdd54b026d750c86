"""Segments photos: whole as they are evaluated, or window by window where one is too large for that."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from src.data.labels import LabelSet, OwnIds
from src.data.readers.images import read_rgb
from src.data.windows import SIDE, WHOLE, parts
from src.errors import memory_ran_out
from src.files.pictures import save_picture
from src.files.untrusted import shown
from src.inference.drawing import overlay
from src.inference.predictor import Predictor
from src.inference.scenes import gray_maps

_log = logging.getLogger(__name__)
_STRIP = 512  # rows of an overlay that are blended at a time


@torch.inference_mode()
def segment_photo(
    model: Predictor, device: torch.device, file: Path, output: Path, name: str, *,
    side: int | None, overlap: int, opacity: float, uncertainty: bool, ids: OwnIds | None = None,
) -> None:  # fmt: skip
    """Writes masks/NAME.png (class numbers, with the palette), overlays/NAME.png, uncertainty/NAME_….png (uint8, 255 is 1),
    and TASK/NAME.tif (float32) of each further task of the model that is a map.

    Args:
        side: of the windows that a photo is cut into by a model that takes images whole; None takes the photo whole, and
            in windows only if it has more than `WHOLE` pixels or memory runs out.
        overlap: of windows, in pixels.
        ids: what the mask has for each class; None is its number.

    Raises:
        UserError: the photo cannot be read.
        OSError: the output cannot be written.
    """
    image = read_rgb(file)
    pixels = image.shape[1] * image.shape[2]
    maps: dict[str, npt.NDArray[np.generic]] | None = None
    if model.inference.windows or (side is None and pixels <= WHOLE):
        try:
            maps = _maps(model, image[None] if model.inference.windows else image[None].to(device), uncertainty)
        except (MemoryError, RuntimeError) as error:
            if model.inference.windows or not memory_ran_out(error) or max(image.shape[1:]) <= SIDE:
                raise
    if maps is None:  # not inside the handler: the error holds what was computed
        if side is None:
            why = "memory ran out" if pixels <= WHOLE else f"more than {WHOLE / 1e6:.1f} million are too many at once"
            _log.info(
                "%s: %.1f million pixels are done in windows of %d (%s)", shown(str(file)), pixels / 1e6, SIDE, why
            )
        maps = _in_windows(model, device, image, side or SIDE, overlap, uncertainty)
    _write(maps, image, model.label_set, output, name, opacity, ids)


def _maps(model: Predictor, raw: Tensor, uncertainty: bool) -> dict[str, npt.NDArray[np.generic]]:
    """Of one raw image [1, C, H, W]: the mask and uncertainty maps, uint8 [H, W], and the tasks' maps, float32 [H, W]."""
    of_image: dict[str, npt.NDArray[np.generic]] = {}
    for top, outputs in model.predicted(raw):
        of_tasks = {task: values[0].float().cpu().numpy() for task, values in model.task_maps(outputs).items()}
        for kind, values in {**gray_maps(model, outputs, uncertainty), **of_tasks}.items():
            if len(values) == raw.shape[-2]:
                of_image[kind] = values
            else:
                of_image.setdefault(kind, np.empty(raw.shape[-2:], values.dtype))[top : top + len(values)] = values
    return of_image


def _in_windows(
    model: Predictor, device: torch.device, image: Tensor, side: int, overlap: int, uncertainty: bool
) -> dict[str, npt.NDArray[np.generic]]:
    """As `_maps`, of an image [C, H, W]."""
    _, height, width = image.shape
    whole: dict[str, npt.NDArray[np.generic]] = {}
    for part in parts(height, width, side, overlap):
        read, keep = part.read, part.keep
        raw = image[None, :, read.top : read.top + read.height, read.left : read.left + read.width]
        top, left = keep.top - read.top, keep.left - read.left
        for kind, values in _maps(model, raw.to(device), uncertainty).items():
            target = whole.setdefault(kind, np.empty((height, width), values.dtype))
            kept = values[top : top + keep.height, left : left + keep.width]
            target[keep.top : keep.top + keep.height, keep.left : keep.left + keep.width] = kept
    return whole


def _write(
    maps: Mapping[str, npt.NDArray[np.generic]],
    image: Tensor,
    label_set: LabelSet,
    output: Path,
    name: str,
    opacity: float,
    ids: OwnIds | None,
) -> None:
    for kind, values in maps.items():
        picture = Image.fromarray(values if kind != "mask" or ids is None else ids.of(values.astype(np.uint8)))
        if kind == "mask":
            palette = label_set.palette()
            if picture.mode == "L":  # 16 bits have no palette
                picture.putpalette((palette if ids is None else ids.by_value(palette)).tobytes())
            file = output / "masks" / f"{name}.png"
        else:  # those of uncertainty are gray, those of tasks have their own units
            file = output / ("uncertainty" if values.dtype == np.uint8 else kind)
            file /= f"{name}_{kind}.png" if values.dtype == np.uint8 else f"{name}.tif"
        save_picture(picture, file)
    blended = _overlay(image, maps["mask"].astype(np.uint8), label_set, opacity)
    save_picture(Image.fromarray(blended), output / "overlays" / f"{name}.png")


def _overlay(image: Tensor, mask: npt.NDArray[np.uint8], label_set: LabelSet, opacity: float) -> npt.NDArray[np.uint8]:
    """Strip by strip: blending takes ten times a picture's bytes."""
    picture = image.permute(1, 2, 0).numpy()
    blended = np.empty(picture.shape, np.uint8)
    for top in range(0, len(picture), _STRIP):
        rows = slice(top, top + _STRIP)
        blended[rows] = overlay(picture[rows], mask[rows], label_set, opacity)
    return blended
