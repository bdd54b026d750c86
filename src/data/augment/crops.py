"""What `Augment` cuts out of an image: resized, warped, padded to the crop's size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as F

from src.data.augment.geometry import Warp, as_dtype
from src.data.samples import Pixels


def warped(
    pixels: Pixels,
    warp: Warp,
    corner: Sequence[int],
    cut: Sequence[int],
    window: Sequence[int],
    crop: Sequence[int],
    ignore_index: int,
    antialias: bool,
) -> Pixels:
    """The warped crop, out of its region with as much around it as the warp may reach for and the image has."""
    begin: list[float] = []
    size: list[int] = []
    box: list[tuple[int, int]] = []
    for side, margin in enumerate(warp.margin(crop)):
        zoom = crop[side] / window[side]
        reach = math.ceil(margin / zoom)
        first = max(0, corner[side] - reach)
        end = min(pixels.mask.shape[side - 2], corner[side] + cut[side] + reach)
        box.append((first, end - first))
        size.append(max(1, round((end - first) * zoom)))
        begin.append((corner[side] - first) * size[side] / (end - first))
    (top, tall), (left, wide) = box
    pixels = pixels.moved(lambda one: one[..., top : top + tall, left : left + wide])
    if size != [tall, wide]:
        pixels = resized(pixels, size, antialias)
    return warp(pixels, begin, crop, ignore_index)


def resized(pixels: Pixels, size: list[int], antialias: bool = True) -> Pixels:
    """The image resampled linearly; of mask and depth the nearest pixels, the same ones of both."""

    def nearest(one: Tensor) -> Tensor:
        return interpolate(one[None, None], size, mode="nearest-exact")[0, 0]

    image = F.resize(pixels.image, size, F.InterpolationMode.BILINEAR, antialias=antialias)
    return Pixels(image, nearest(pixels.mask), None if pixels.depth is None else nearest(pixels.depth))


def padded(pixels: Pixels, size: Sequence[int], ignore_index: int, values: Sequence[float] | None = None) -> Pixels:
    """The image at this size with `values` below and to the right of it, or its edge repeated; the mask with ignored pixels,
    the depth with unknown ones."""
    height, width = pixels.image.shape[-2:]
    around = [0, 0, size[1] - width, size[0] - height]
    if not any(around):
        return pixels
    if values is None:
        image = F.pad(pixels.image, around, padding_mode="edge")
    else:
        fill = as_dtype(torch.tensor(values), pixels.image.dtype)[:, None, None]
        image = fill.expand(-1, size[0], size[1]).clone()
        image[:, :height, :width] = pixels.image
    mask = F.pad(pixels.mask[None], around, fill=ignore_index)[0]
    return Pixels(image, mask, None if pixels.depth is None else F.pad(pixels.depth[None], around, fill=math.nan)[0])


def largest_share(mask: Tensor, ignore_index: int) -> float:
    counts = torch.bincount(mask.flatten(), minlength=ignore_index + 1)
    counts[ignore_index] = 0
    total = int(counts.sum())
    return int(counts.max()) / total if total else 1.0
