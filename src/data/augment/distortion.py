"""Changes of brightness, contrast, saturation and hue that are drawn one by one: `data.augment.photometric_mode`."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from src.data.augment.geometry import as_dtype, happens

_RANGE = 255.0  # of 8-bit images


class Distortion:
    """Brightness, contrast, saturation and hue, each drawn by its own lot: brightness first, hue after saturation, and the
    contrast before or after those two, as chance has it (SSD, Liu et al. 2016; mmsegmentation's `PhotoMetricDistortion`).

    Args:
        probability: of each of the four.
        brightness, contrast, saturation: strength; 0.5 draws a factor from 0.5 to 1.5.
        hue: strength, as a share of the colour circle; gray images have neither hue nor saturation.
        additive: SSD's arithmetic. The brightness is added, up to `brightness` of the range; the contrast is a factor of the
            values themselves, not of their distance from the mean; the saturation is HSV's. Otherwise it is torchvision's.
    """

    def __init__(
        self, probability: float, brightness: float, contrast: float, saturation: float, hue: float, additive: bool
    ) -> None:
        self.probability, self.additive = probability, additive
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def __call__(self, image: Tensor) -> Tensor:
        """An 8-bit image [C, H, W] to another."""
        if happens(self.probability):
            image = self._brightened(image)
        first = bool(torch.rand(()) < 0.5)
        if first:
            image = self._contrasted(image)
        if happens(self.probability) and image.shape[0] == 3:
            image = self._saturated(image)
        if happens(self.probability) and image.shape[0] == 3:
            image = F.adjust_hue(image, _around(0.0, self.hue))
        return image if first else self._contrasted(image)

    def _brightened(self, image: Tensor) -> Tensor:
        if self.additive:
            return as_dtype(image.float() + _RANGE * _around(0.0, self.brightness), image.dtype)
        brightened: Tensor = F.adjust_brightness(image, max(0.0, _around(1.0, self.brightness)))
        return brightened

    def _contrasted(self, image: Tensor) -> Tensor:
        if not happens(self.probability):
            return image
        factor = max(0.0, _around(1.0, self.contrast))
        return as_dtype(image.float() * factor, image.dtype) if self.additive else F.adjust_contrast(image, factor)

    def _saturated(self, image: Tensor) -> Tensor:
        factor = max(0.0, _around(1.0, self.saturation))
        if not self.additive:
            saturated: Tensor = F.adjust_saturation(image, factor)
            return saturated
        values = image.float()
        value = values.amax(dim=0)
        chroma = value - values.amin(dim=0)
        # hue and value stay where each channel keeps its share of the distance from the largest; saturation ends at 1
        stretch = (value / chroma.clamp_min(1)).clamp_max(factor)
        return as_dtype(value - (value - values) * stretch, image.dtype)


def _around(middle: float, strength: float) -> float:
    return middle + strength * (2 * float(torch.rand(())) - 1)
