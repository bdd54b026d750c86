"""Mixes a training sample with another one: CutMix, ClassMix, copy-paste."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from src.data.samples import Pixels

Mix = Literal["cutmix", "classmix", "copy_paste"]


def mixed(kind: Mix, pixels: Pixels, other: Pixels, ignore_index: int) -> Pixels:
    """Pastes a part of another sample into one of the same size, all of its maps; draws from torch's generator.

    "cutmix" (Yun et al. 2019) pastes a box whose share of the image is even in 0…1; "classmix" (Olsson et al. 2021) half of
    the classes that the other sample shows; "copy_paste" (after Ghiasi et al. 2021, by class for want of instances) one of
    its classes, the fewer pixels the likelier. What is ignored in the other sample is only pasted by CutMix.
    """
    if kind == "cutmix":
        pasted = _box(pixels.mask.shape[-2], pixels.mask.shape[-1])
    else:
        counts = torch.bincount(other.mask.flatten(), minlength=256)
        counts[ignore_index] = 0
        present = counts.nonzero().flatten()
        if not len(present):
            return pixels
        if kind == "classmix":
            chosen = present[torch.randperm(len(present))[: (len(present) + 1) // 2]]
        else:
            chosen = present[torch.multinomial(1 / counts[present].double(), 1)]
        pasted = torch.isin(other.mask, chosen.to(other.mask.dtype))
    depth = None
    if pixels.depth is not None and other.depth is not None:
        depth = torch.where(pasted, other.depth, pixels.depth)
    image, mask = torch.where(pasted, other.image, pixels.image), torch.where(pasted, other.mask, pixels.mask)
    return Pixels(image, mask, depth)


def _box(height: int, width: int) -> Tensor:
    """A box, bool [H, W]; its centre is anywhere, and what reaches over the edge is cut off, as in the paper."""
    share, row, column = torch.rand(3).tolist()
    half = share**0.5 / 2
    rows, columns = torch.arange(height), torch.arange(width)
    inside_rows = (rows + 0.5 - row * height).abs() < half * height
    inside_columns = (columns + 0.5 - column * width).abs() < half * width
    inside: Tensor = inside_rows[:, None] & inside_columns
    return inside
