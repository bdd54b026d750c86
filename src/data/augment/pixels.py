"""Changes what an image looks like and moves nothing: CLAHE, gamma, noise, JPEG artefacts, erased boxes, changes by lot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from src.data.augment.geometry import as_dtype, happens
from src.optional_packages import needs

_ASPECT = 0.3  # the narrowest box that is erased, width over height or the other way round


@dataclass(frozen=True)
class Looks:
    """Changes of images [C, H, W] of any dtype, drawn from torch's generator.

    Attributes:
        rand: how many changes of colour, drawn one by one out of `_CHANGES`.
        rand_strength: the strongest of them, in 0…1.
        clahe, gamma, noise, jpeg, erase: probabilities.
        clahe_limit: the largest limit of the contrast, in 0…1.
        gamma_range: of the exponent, drawn log-uniformly.
        noise_strength: the largest standard deviation, as a share of the intensity range.
        jpeg_quality: range of the quality, 1 to 100.
        erase_area: range of the box's share of the image.
    """

    rand: int
    rand_strength: float
    clahe: float
    clahe_limit: float
    gamma: float
    gamma_range: Sequence[float]
    noise: float
    noise_strength: float
    jpeg: float
    jpeg_quality: Sequence[int]
    erase: float
    erase_area: Sequence[float]

    def __call__(self, image: Tensor, intensity: tuple[float, float]) -> Tensor:
        """An image of the same shape and dtype; `intensity`: lowest and highest value that the model distinguishes."""
        for _ in range(self.rand):
            change = _CHANGES[int(torch.randint(len(_CHANGES), ()))]
            image = change(image, self.rand_strength * (2 * float(torch.rand(())) - 1))
        if happens(self.clahe):
            image = _clahe(image, self.clahe_limit * float(torch.rand(())), intensity)
        if happens(self.gamma):
            image = _gamma(image, _log_uniform(self.gamma_range), intensity)
        if happens(self.noise):
            deviation = self.noise_strength * float(torch.rand(())) * (intensity[1] - intensity[0])
            noisy = image.float() + deviation * torch.randn(image.shape)
            image = as_dtype(noisy, image.dtype)
        if happens(self.jpeg):
            low, high = self.jpeg_quality
            image = F.jpeg(image, int(torch.randint(low, high + 1, ())))
        return _erased(image, self.erase_area, intensity) if happens(self.erase) else image


def _clahe(image: Tensor, limit: float, intensity: tuple[float, float]) -> Tensor:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994), scikit-image's: of RGB the brightest channel's, its
    hue kept; else of each channel alone."""
    low, high = intensity
    share = ((image.double() - low) / (high - low)).clamp(0, 1).numpy()
    equalize = needs("skimage.exposure", "topology").equalize_adapthist
    if len(share) == 3:
        equalized = equalize(share.transpose(1, 2, 0), clip_limit=limit).transpose(2, 0, 1)
    else:
        equalized = np.stack([equalize(channel, clip_limit=limit) for channel in share])
    return as_dtype(low + (high - low) * torch.from_numpy(equalized), image.dtype)


def _gamma(image: Tensor, exponent: float, intensity: tuple[float, float]) -> Tensor:
    """((x - low) / (high - low)) ^ exponent, in the same range; what is beyond the range is clipped, as the model does."""
    low, high = intensity
    share = ((image.float() - low) / (high - low)).clamp(0, 1)
    return as_dtype(low + (high - low) * share**exponent, image.dtype)


def _erased(image: Tensor, area: Sequence[float], intensity: tuple[float, float]) -> Tensor:
    """The image with a box of one random value a channel (Zhong et al. 2020)."""
    height, width = image.shape[-2:]
    share = area[0] + (area[1] - area[0]) * float(torch.rand(()))
    aspect = _log_uniform([_ASPECT, 1 / _ASPECT])
    tall = min(height, max(1, round(math.sqrt(share * height * width * aspect))))
    wide = min(width, max(1, round(math.sqrt(share * height * width / aspect))))
    top, left = int(torch.randint(height - tall + 1, ())), int(torch.randint(width - wide + 1, ()))
    low, high = intensity
    fill = as_dtype(low + (high - low) * torch.rand(image.shape[0], 1, 1), image.dtype)
    erased = image.clone()
    erased[:, top : top + tall, left : left + wide] = fill
    return erased


def _log_uniform(bounds: Sequence[float]) -> float:
    low, high = math.log(bounds[0]), math.log(bounds[1])
    return math.exp(low + (high - low) * float(torch.rand(())))


# Of 8-bit gray or RGB images; each takes a strength in -1…1. Saturation does nothing to a gray image.
_CHANGES: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda image, strength: image,
    lambda image, strength: F.autocontrast(image),
    lambda image, strength: F.equalize(image),
    lambda image, strength: F.adjust_brightness(image, 1 + 0.9 * strength),
    lambda image, strength: F.adjust_contrast(image, 1 + 0.9 * strength),
    lambda image, strength: F.adjust_saturation(image, 1 + 0.9 * strength),
    lambda image, strength: F.adjust_sharpness(image, 1 + 0.9 * strength),
    lambda image, strength: F.posterize(image, 8 - round(4 * abs(strength))),
    lambda image, strength: F.solarize(image, 255 - 127 * abs(strength)),
)
