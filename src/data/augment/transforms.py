"""`Augment` changes a training sample at random, image and mask together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from src.data.samples import Pixels
from src.errors import UserError

LEAST = 0.0015  # share of an image or crop that a class should have to be seen: DAFormer's 3000 pixels of Cityscapes
_TRIES = 10  # crops drawn until one class's share is small enough, as in mmsegmentation's cat_max_ratio


class Augment:
    """Random scale, crop, flip, photometric change and blur, drawn from torch's generator.

    Only the part of the image that ends up in the crop is touched: crop and scale are drawn first, the region is cut
    out of the original and resized once.

    Args:
        scale: range of the zoom, drawn log-uniformly; None keeps the size.
        max_class_share: a crop in which one class has more than this share of the labelled pixels is drawn again
            (ten times at most).
        flip: probability of a left-right flip.
        vertical_flip: probability of an upside-down flip.
        photometric: probability of a change of brightness, contrast, saturation and hue (8-bit gray or RGB only).
        brightness, contrast, saturation: strength; 0.4 draws a factor from 0.6 to 1.4.
        hue: strength, as a share of the colour circle, at most 0.5.
        blur: probability of a Gaussian blur (sigma 0.1 to 2 pixels).
    """

    def __init__(
        self,
        scale: list[Annotated[float, Field(gt=0)]] | None = None,
        max_class_share: Annotated[float, Field(gt=0, le=1)] = 1.0,
        flip: Annotated[float, Field(ge=0, le=1)] = 0.5,
        vertical_flip: Annotated[float, Field(ge=0, le=1)] = 0.0,
        photometric: Annotated[float, Field(ge=0, le=1)] = 0.0,
        brightness: NonNegativeFloat = 0.4,
        contrast: NonNegativeFloat = 0.4,
        saturation: NonNegativeFloat = 0.4,
        hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
        blur: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:
        if scale is not None and (len(scale) != 2 or scale[0] > scale[1]):
            raise UserError(f"data.augment.scale: should be [smallest, largest], not {list(scale)}")
        self.scale, self.max_class_share = scale, max_class_share
        self.flip, self.vertical_flip, self.photometric, self.blur = flip, vertical_flip, photometric, blur
        self._jitter = v2.ColorJitter(brightness, contrast, saturation, hue)
        self._blur = v2.GaussianBlur(kernel_size=7, sigma=(0.1, 2.0))

    def __call__(
        self, pixels: Pixels, crop: Sequence[int] | None, ignore_index: int, wanted: int | None = None
    ) -> Pixels:
        """Changes one sample; its depth goes the way of its mask.

        Args:
            pixels: of the sample, as it was read.
            crop: height and width of the result; None keeps the (scaled) image whole.
            ignore_index: fills the mask where the crop reaches over the image's edge; the depth is NaN there.
            wanted: a class; a crop in which it has less than 0.15% of the pixels is drawn again (ten times at most).
        """
        pixels = self._scale_and_crop(pixels, crop, ignore_index, wanted)
        # decoders give all channels of a pixel together, which colour changes are slow on
        pixels = replace(pixels, image=pixels.image.contiguous())
        if torch.rand(()) < self.flip:
            pixels = pixels.moved(F.horizontal_flip)
        if torch.rand(()) < self.vertical_flip:
            pixels = pixels.moved(F.vertical_flip)
        if torch.rand(()) < self.photometric:
            pixels = replace(pixels, image=self._jitter(pixels.image))
        if torch.rand(()) < self.blur:
            pixels = replace(pixels, image=self._blur(pixels.image))
        return pixels

    def _scale_and_crop(
        self, pixels: Pixels, crop: Sequence[int] | None, ignore_index: int, wanted: int | None
    ) -> Pixels:
        zoom = 1.0
        if self.scale is not None:
            low, high = math.log(self.scale[0]), math.log(self.scale[1])
            zoom = math.exp(low + (high - low) * float(torch.rand(())))
        height, width = pixels.image.shape[-2:]
        if crop is None:
            size = [max(1, round(height * zoom)), max(1, round(width * zoom))]
            return pixels if size == [height, width] else _resize(pixels, size)
        # The crop's window, in pixels of the original; it may be larger than the image.
        window = [max(1, round(crop[0] / zoom)), max(1, round(crop[1] / zoom))]
        cut = [min(window[0], height), min(window[1], width)]
        for _ in range(_TRIES):
            top = int(torch.randint(height - cut[0] + 1, ()))
            left = int(torch.randint(width - cut[1] + 1, ()))
            seen = F.crop(pixels.mask, top, left, cut[0], cut[1])
            varied = self.max_class_share == 1 or _largest_share(seen, ignore_index) <= self.max_class_share
            if varied and (wanted is None or int((seen == wanted).sum()) >= LEAST * seen.numel()):
                break
        pixels = pixels.moved(lambda one: F.crop(one, top, left, cut[0], cut[1]))
        size = [max(1, round(crop[0] * cut[0] / window[0])), max(1, round(crop[1] * cut[1] / window[1]))]
        if size != cut:
            pixels = _resize(pixels, size)
        below, right = crop[0] - size[0], crop[1] - size[1]
        return _pad(pixels, below, right, ignore_index) if below or right else pixels


class Strong:
    """The strong change of an unlabelled image, on top of `Augment`'s: it moves nothing, so that labels of the weakly
    changed image still fit. Probabilities and strengths are UniMatch's (Yang et al. 2023); colour only for 8-bit gray
    or RGB images, of which others are only blurred.

    Args:
        photometric: probability of a change of brightness, contrast, saturation and hue.
        brightness, contrast, saturation, hue: as in `Augment`.
        gray: probability of losing the colour.
        blur: probability of a Gaussian blur (sigma 0.1 to 2 pixels).
    """

    def __init__(
        self,
        photometric: Annotated[float, Field(ge=0, le=1)] = 0.8,
        brightness: NonNegativeFloat = 0.5,
        contrast: NonNegativeFloat = 0.5,
        saturation: NonNegativeFloat = 0.5,
        hue: Annotated[float, Field(ge=0, le=0.5)] = 0.25,
        gray: Annotated[float, Field(ge=0, le=1)] = 0.2,
        blur: Annotated[float, Field(ge=0, le=1)] = 0.5,
    ) -> None:
        self.photometric, self.gray, self.blur = photometric, gray, blur
        self._jitter = v2.ColorJitter(brightness, contrast, saturation, hue)
        self._blur = v2.GaussianBlur(kernel_size=7, sigma=(0.1, 2.0))

    def __call__(self, image: Tensor) -> Tensor:
        """Image [C, H, W] to one of the same shape and dtype."""
        colors = image.dtype == torch.uint8 and image.shape[0] in (1, 3)
        if colors and torch.rand(()) < self.photometric:
            image = self._jitter(image)
        if colors and image.shape[0] == 3 and torch.rand(()) < self.gray:
            image = F.rgb_to_grayscale(image, num_output_channels=3)
        if torch.rand(()) < self.blur:
            image = self._blur(image)
        return image


def _resize(pixels: Pixels, size: list[int]) -> Pixels:
    """The image resampled with antialiasing; of mask and depth the nearest pixels, the same ones of both."""

    def nearest(one: Tensor) -> Tensor:
        resized: Tensor = F.resize(one[None], size, F.InterpolationMode.NEAREST_EXACT)[0]
        return resized

    image = F.resize(pixels.image, size, F.InterpolationMode.BILINEAR, antialias=True)
    return Pixels(image, nearest(pixels.mask), None if pixels.depth is None else nearest(pixels.depth))


def _pad(pixels: Pixels, below: int, right: int, ignore_index: int) -> Pixels:
    """The image with its edge repeated, the mask with ignored pixels, the depth with unknown ones."""
    around = [0, 0, right, below]
    image = F.pad(pixels.image, around, padding_mode="edge")
    mask = F.pad(pixels.mask[None], around, fill=ignore_index)[0]
    return Pixels(image, mask, None if pixels.depth is None else F.pad(pixels.depth[None], around, fill=math.nan)[0])


def _largest_share(mask: Tensor, ignore_index: int) -> float:
    counts = torch.bincount(mask.flatten(), minlength=ignore_index + 1)
    counts[ignore_index] = 0
    total = int(counts.sum())
    return int(counts.max()) / total if total else 1.0
