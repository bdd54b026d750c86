"""`Augment` changes a training sample at random, image and mask together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from src.config.inference import check_sizes, enlarged_by
from src.config.rules import check_bounds
from src.config.shares import Share
from src.data.augment.colors import Jitter
from src.data.augment.crops import largest_share, padded, resized, warped
from src.data.augment.distortion import Distortion
from src.data.augment.geometry import Geometry, happens
from src.data.augment.pixels import Looks
from src.data.samples import Pixels
from src.errors import UserError
from src.optional_packages import needs

LEAST = 0.0015  # share of an image or crop that a class should have to be seen: DAFormer's 3000 pixels of Cityscapes
_TRIES = 10  # crops drawn until one class's share is small enough, as in mmsegmentation's cat_max_ratio


class Augment:
    """Random scale, crop, flips, turns and warps, colour, noise and blur, drawn from torch's generator.

    Only the part of the image that ends up in the crop is touched: crop and scale are drawn first, the region is cut
    out of the original and resized once, and all else is done to that. What has the probability 0 draws nothing.

    Args:
        scale: range of the zoom; None keeps the size.
        zoom: whether the zoom is drawn log-uniformly or uniformly, as mmsegmentation's `ratio_range`.
        antialias: of images that are shrunk; OpenCV, and so mmsegmentation, has none.
        pad: the value of each channel beyond the image, which is put there after all other changes; None repeats the edge,
            before them.
        resize: height and width to which images are stretched before the zoom, as `inference.resize` does when they are
            scored; None and [] leave them as they are.
        short_side: images are resized before the zoom so that their shorter side has so many pixels, as
            `inference.short_side` does when they are scored; None and 0 leave them as they are.
        long_side: the most pixels that the longer side may have then, before the zoom; None and 0 set no limit.
        max_class_share: a crop in which one class has more than this share of the labelled pixels is drawn again
            (ten times at most).
        flip: probability of a left-right flip.
        vertical_flip: probability of an upside-down flip.
        quarter_turns: probability of a turn by 90, 180 or 270 degrees; without a crop, images that are not square turn by
            180 degrees only.
        rotation: probability of a turn by up to `degrees` either way. What comes from beyond the image is ignored, in
            perspective and elastic changes too; the three of them resample once.
        degrees: the largest turn of `rotation`.
        perspective: probability of a change of perspective, which moves each corner by up to `tilt`.
        tilt: as a share of half of the side.
        elastic: probability of an elastic deformation, smooth between control points (Ronneberger et al. 2015), one each 128
            pixels, three a side at least.
        bend: standard deviation of the control points' displacements, in pixels.
        photometric: probability of a change of brightness, contrast, saturation and hue (8-bit gray or RGB only).
        photometric_mode: "jitter" makes all four changes or none, in any order; for "each" and "ssd" see `Distortion`.
        brightness, contrast, saturation: strength; 0.4 draws a factor from 0.6 to 1.4.
        hue: strength, as a share of the colour circle, at most 0.5.
        rand: this many changes of colour and contrast drawn by lot for each image, one after the other, in the manner of
            RandAugment (Cubuk et al. 2020), but of those that move nothing: none, autocontrast, equalize, brightness, contrast,
            saturation, sharpness, posterize, solarize (8-bit gray or RGB only).
        rand_strength: of the strongest of them, 0 to 1.
        clahe: probability of contrast-limited adaptive histogram equalisation (scikit-image's, the extra `topology`).
        clahe_limit: the largest limit of its contrast; each image's is drawn evenly below it.
        gamma: probability of a power of the share of the intensity range, by an exponent out of `gamma_range`.
        gamma_range: drawn log-uniformly.
        noise: probability of Gaussian noise, of a standard deviation from 0 to `noise_strength`.
        noise_strength: as a share of the intensity range.
        blur: probability of a Gaussian blur (sigma 0.1 to 2 pixels).
        jpeg: probability of JPEG's artefacts, of a quality out of `jpeg_quality` (8-bit gray or RGB only).
        jpeg_quality: 1 to 100.
        erase: probability of a box of one value a channel in the image alone; its labels stay (Zhong et al. 2020).
        erase_area: range of the box's share of the image.
    """

    def __init__(
        self,
        scale: list[Annotated[float, Field(gt=0)]] | None = None,
        max_class_share: Annotated[float, Field(gt=0, le=1)] = 1.0,
        flip: Share = 0.5,
        vertical_flip: Share = 0.0,
        photometric: Share = 0.0,
        brightness: NonNegativeFloat = 0.4,
        contrast: NonNegativeFloat = 0.4,
        saturation: NonNegativeFloat = 0.4,
        hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
        blur: Share = 0.0,
        short_side: Annotated[int, Field(ge=0, le=16384)] | None = None,
        long_side: NonNegativeInt | None = None,
        quarter_turns: Share = 0.0,
        rotation: Share = 0.0,
        degrees: Annotated[float, Field(gt=0, le=180)] = 15.0,
        perspective: Share = 0.0,
        tilt: Annotated[float, Field(gt=0, le=0.5)] = 0.2,
        elastic: Share = 0.0,
        bend: Annotated[float, Field(gt=0, le=100)] = 5.0,
        rand: Annotated[int, Field(ge=0, le=8)] = 0,
        rand_strength: Share = 0.5,
        gamma: Share = 0.0,
        gamma_range: list[Annotated[float, Field(gt=0)]] | None = None,
        noise: Share = 0.0,
        noise_strength: Share = 0.05,
        jpeg: Share = 0.0,
        jpeg_quality: list[Annotated[int, Field(ge=1, le=100)]] | None = None,
        erase: Share = 0.0,
        erase_area: list[Annotated[float, Field(gt=0, le=1)]] | None = None,
        zoom: Literal["log", "uniform"] = "log",
        antialias: bool = True,
        pad: list[float] | None = None,
        photometric_mode: Literal["jitter", "each", "ssd"] = "jitter",
        clahe: Share = 0.0,
        clahe_limit: Annotated[float, Field(gt=0, le=1)] = 0.03,
        resize: list[Annotated[int, Field(ge=1, le=16384)]] | None = None,
    ) -> None:
        gamma_range, jpeg_quality = gamma_range or [0.7, 1.5], jpeg_quality or [30, 95]
        erase_area = erase_area or [0.02, 0.2]
        ranges: dict[str, Sequence[float]] = {
            "gamma_range": gamma_range,
            "jpeg_quality": jpeg_quality,
            "erase_area": erase_area,
        }
        if scale is not None:
            ranges["scale"] = scale
        for key, bounds in ranges.items():
            check_bounds(f"data.augment.{key}", bounds)
        self.scale, self.max_class_share = scale, max_class_share
        self.resize, self.short_side, self.long_side = resize, short_side, long_side
        check_sizes(self, "data.augment")
        self.flip, self.vertical_flip, self.photometric, self.blur = flip, vertical_flip, photometric, blur
        self.quarter_turns = quarter_turns
        self.zoom, self.antialias, self.pad = zoom, antialias, pad
        self._geometry = Geometry(rotation, degrees, perspective, tilt, elastic, bend)
        self._looks = Looks(
            rand, rand_strength, clahe, clahe_limit, gamma, gamma_range, noise, noise_strength, jpeg, jpeg_quality, erase,
            erase_area,
        )  # fmt: skip
        self._jitter = Jitter(brightness, contrast, saturation, hue)
        if photometric_mode != "jitter":
            strengths = (brightness, contrast, saturation, hue)
            self._distortion = Distortion(photometric, *strengths, additive=photometric_mode == "ssd")
        self.photometric_mode = photometric_mode
        self._blur = v2.GaussianBlur(kernel_size=7, sigma=(0.1, 2.0))

    def check(self, channels: int, intensity: tuple[float, float], has_crop: bool) -> None:
        """Checks the changes against the images that they are for.

        Raises:
            UserError: these images cannot be changed so; names the key.
        """
        if not has_crop and self.scale is not None:
            raise UserError("data.crop: random scaling needs a crop, or samples of a batch differ in size; give one")
        if self._looks.clahe:
            needs("skimage", "topology")  # told before a sample is read
        if self.pad is not None and len(self.pad) != channels:
            raise UserError(f"data.augment.pad: has {len(self.pad)} values for {channels} channels; give one for each")
        of_photos = {"photometric": self.photometric, "rand": self._looks.rand, "jpeg": self._looks.jpeg}
        wanted = next((key for key, value in of_photos.items() if value), None)
        if wanted is not None and not (channels in (1, 3) and intensity == (0.0, 255.0)):
            raise UserError(
                f"data.augment.{wanted}: is for gray and RGB images of 8 bits, these have {channels} channels "
                f"from {intensity[0]:g} to {intensity[1]:g}; set it to 0"
            )

    def __call__(
        self,
        pixels: Pixels,
        crop: Sequence[int] | None,
        ignore_index: int,
        wanted: int | None = None,
        intensity: tuple[float, float] = (0.0, 255.0),
    ) -> Pixels:
        """Changes one sample; its depth goes the way of its mask.

        Args:
            pixels: of the sample, as it was read.
            crop: height and width of the result; None keeps the (scaled) image whole.
            ignore_index: fills the mask where the crop reaches over the image's edge; the depth is NaN there.
            wanted: a class; a crop in which it has less than 0.15% of the pixels is drawn again (ten times at most).
            intensity: lowest and highest image value.
        """
        whole = crop
        turns = int(torch.randint(1, 4, ())) if happens(self.quarter_turns) else 0
        if turns % 2:
            if crop is not None:
                crop = (crop[1], crop[0])
            elif pixels.mask.shape[-2] != pixels.mask.shape[-1]:
                turns = 2
        pixels = self._scale_and_crop(pixels, crop, ignore_index, wanted)
        if turns:
            pixels = pixels.moved(lambda one: torch.rot90(one, turns, (-2, -1)))
        # decoders give all channels of a pixel together, which colour changes are slow on
        pixels = replace(pixels, image=pixels.image.contiguous())
        if torch.rand(()) < self.flip:
            pixels = pixels.moved(lambda one: one.flip(-1))
        if torch.rand(()) < self.vertical_flip:
            pixels = pixels.moved(lambda one: one.flip(-2))
        if self.photometric_mode != "jitter":
            pixels = replace(pixels, image=self._distortion(pixels.image))
        elif torch.rand(()) < self.photometric:
            pixels = replace(pixels, image=self._jitter(pixels.image))
        if torch.rand(()) < self.blur:
            pixels = replace(pixels, image=self._blur(pixels.image))
        pixels = replace(pixels, image=self._looks(pixels.image, intensity))
        return pixels if self.pad is None or whole is None else padded(pixels, whole, ignore_index, self.pad)

    def _scale_and_crop(
        self, pixels: Pixels, crop: Sequence[int] | None, ignore_index: int, wanted: int | None
    ) -> Pixels:
        warp = self._geometry.draw()
        height, width = pixels.image.shape[-2:]
        zooms, zoom = enlarged_by(height, width, self), 1.0
        if self.scale is not None:
            low, high = self.scale
            if self.zoom == "uniform":
                zoom *= low + (high - low) * float(torch.rand(()))
            else:
                zoom *= math.exp(math.log(low) + (math.log(high) - math.log(low)) * float(torch.rand(())))
        if crop is None:
            size = [
                max(1, math.floor(side * (own * zoom) + 0.5)) for side, own in zip((height, width), zooms, strict=True)
            ]
            pixels = pixels if size == [height, width] else resized(pixels, size, self.antialias)
            return pixels if warp is None else warp(pixels, (0, 0), size, ignore_index)
        # The crop's window, in pixels of the original; it may be larger than the image.
        window = [max(1, round(side / (own * zoom))) for side, own in zip(crop, zooms, strict=True)]
        cut = [min(window[0], height), min(window[1], width)]
        for _ in range(_TRIES):
            top = int(torch.randint(height - cut[0] + 1, ()))
            left = int(torch.randint(width - cut[1] + 1, ()))
            seen = pixels.mask[top : top + cut[0], left : left + cut[1]]
            varied = self.max_class_share == 1 or largest_share(seen, ignore_index) <= self.max_class_share
            if varied and (wanted is None or int((seen == wanted).sum()) >= LEAST * seen.numel()):
                break
        if warp is not None:
            return warped(pixels, warp, (top, left), cut, window, crop, ignore_index, self.antialias)
        pixels = pixels.moved(lambda one: one[..., top : top + cut[0], left : left + cut[1]])
        size = [max(1, round(crop[0] * cut[0] / window[0])), max(1, round(crop[1] * cut[1] / window[1]))]
        if size != cut:
            pixels = resized(pixels, size, self.antialias)
        return pixels if self.pad is not None else padded(pixels, crop, ignore_index)


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
        self._jitter = Jitter(brightness, contrast, saturation, hue)
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
