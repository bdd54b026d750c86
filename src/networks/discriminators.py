"""Discriminators: fully convolutional critics of label maps, for images of any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm as _spectral_norm

from src.errors import UserError

_SLOPE = 0.2  # of LeakyReLU
Depth = Annotated[int, Field(ge=1, le=8)]


class Discriminator(nn.Module):
    """Scores how real a label map looks, region by region.

    Args:
        layers: each a block of the network; the last gives one channel, the scores.
        conditional: whether the image is seen beside the map.
        smallest: sides of an image must not be smaller.
    """

    def __init__(self, layers: list[nn.Module], conditional: bool, smallest: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.conditional, self.smallest = conditional, smallest

    def check_size(self, height: int, width: int) -> None:
        """Raises UserError where training images are too small."""
        if min(height, width) < self.smallest:
            raise UserError(
                f"discriminator: it needs images of at least {self.smallest} pixels a side, training images have {height} x "
                f"{width}; take a smaller discriminator.depth or a larger data.crop"
            )

    def forward(self, label_map: Tensor, image: Tensor, valid: Tensor) -> tuple[Tensor, list[Tensor]]:
        """
        Args:
            label_map: float [B, K, H, W], a probability of each class.
            image: float [B, C, H, W], normalised.
            valid: float [B, 1, H, W], 0 at ignored pixels: they look the same (zero) in every map.

        Returns:
            Scores float [B, 1, h, w], higher is more real, and the features of all layers before, for their distance.
        """
        seen = torch.cat([label_map, image], dim=1) if self.conditional else label_map
        x = (seen * valid).contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers[:-1]:
            x = layer(x)
            features.append(x)
        return self.layers[-1](x), features


def score_weight(valid: Tensor, scores: Tensor) -> Tensor:
    """Share of each score's pixels that are valid: float [B, 1, h, w] of `valid` [B, 1, H, W]."""
    height, width = scores.shape[-2:]
    return F.adaptive_avg_pool2d(valid, (height, width))


@contextmanager
def held_fixed(module: nn.Module) -> Iterator[None]:
    """What is computed inside gives no gradient to the module's parameters, only through it."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def fcn(
    num_classes: int,
    in_channels: int,
    width: PositiveInt = 64,
    depth: Depth = 5,
    conditional: bool = False,
    spectral_norm: bool = False,
) -> Discriminator:
    """Hung et al. 2018: `depth` 4x4 convolutions of stride 2 with leaky ReLU, no normalisation; the last gives the scores.

    The paper enlarges the scores to the image before its loss; here the loss is taken where the scores are, and only
    the confidence map is enlarged.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        width: channels of the first layer; doubled at each, up to 8 times.
        depth: layers; 5 in the paper.
        conditional: see the image too.
        spectral_norm: keep each layer's largest singular value at 1 (Miyato et al. 2018).
    """
    channels = num_classes + (in_channels if conditional else 0)
    layers: list[nn.Module] = []
    for level in range(depth - 1):
        after = width * 2 ** min(level, 3)
        layers.append(_block(channels, after, 4, 2, "none", spectral_norm))
        channels = after
    layers.append(_convolution(channels, 1, 4, 2, spectral_norm))
    return Discriminator(layers, conditional, smallest=2**depth)


def patchgan(
    num_classes: int,
    in_channels: int,
    width: PositiveInt = 64,
    depth: Depth = 3,
    norm: Literal["none", "instance", "batch"] = "instance",
    conditional: bool = True,
    spectral_norm: bool = False,
) -> Discriminator:
    """PatchGAN (Isola et al. 2017): each score judges a patch, of 70x70 pixels with three layers of stride 2.

    Args:
        num_classes, in_channels, width, conditional, spectral_norm: as in `fcn`.
        depth: layers of stride 2.
        norm: after all layers but the first and the last; the paper has "batch".
    """
    channels = num_classes + (in_channels if conditional else 0)
    layers: list[nn.Module] = []
    for level in range(depth + 1):
        after = width * 2 ** min(level, 3)
        layers.append(_block(channels, after, 4, 2 if level < depth else 1, norm if level else "none", spectral_norm))
        channels = after
    layers.append(_convolution(channels, 1, 4, 1, spectral_norm))
    return Discriminator(layers, conditional, smallest=3 * 2**depth)


def pixel(
    num_classes: int,
    in_channels: int,
    width: PositiveInt = 64,
    conditional: bool = True,
    spectral_norm: bool = False,
) -> Discriminator:
    """PixelGAN (Isola et al. 2017): 1x1 convolutions, every pixel judged by itself; keys as in `fcn`."""
    channels = num_classes + (in_channels if conditional else 0)
    layers = [
        _block(channels, width, 1, 1, "none", spectral_norm),
        _block(width, 2 * width, 1, 1, "none", spectral_norm),
    ]
    return Discriminator([*layers, _convolution(2 * width, 1, 1, 1, spectral_norm)], conditional, smallest=1)


def whole_image(
    num_classes: int,
    in_channels: int,
    width: PositiveInt = 64,
    depth: Depth = 4,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    conditional: bool = True,
    spectral_norm: bool = False,
) -> Discriminator:
    """One score for a whole image (s4GAN, Mittal et al. 2019): `depth` 4x4 convolutions of stride 2 with leaky ReLU, their mean
    over the image, and a linear layer; the means are the last features.

    Args:
        num_classes, in_channels, width, conditional, spectral_norm: as in `fcn`.
        depth: convolutions; 4 in the paper.
        dropout: probability that a channel is dropped, after all of them but the last.
    """
    channels = num_classes + (in_channels if conditional else 0)
    layers: list[nn.Module] = []
    for level in range(depth):
        after = width * 2 ** min(level, 3)
        layers.append(_block(channels, after, 4, 2, "none", spectral_norm))
        if level < depth - 1:
            layers[-1].append(nn.Dropout2d(dropout))  # type: ignore[operator]
        channels = after
    layers += [nn.AdaptiveAvgPool2d(1), _convolution(channels, 1, 1, 1, spectral_norm)]
    return Discriminator(layers, conditional, smallest=2**depth)


def _convolution(before: int, after: int, kernel: int, stride: int, spectral: bool, bias: bool = True) -> nn.Module:
    convolution = nn.Conv2d(before, after, kernel, stride, padding=1 if kernel > 1 else 0, bias=bias)
    normalised: nn.Module = _spectral_norm(convolution) if spectral else convolution
    return normalised


def _block(before: int, after: int, kernel: int, stride: int, norm: str, spectral: bool) -> nn.Sequential:
    parts = [_convolution(before, after, kernel, stride, spectral, bias=norm == "none")]
    if norm == "instance":
        parts.append(nn.InstanceNorm2d(after, affine=True))
    elif norm == "batch":
        parts.append(nn.BatchNorm2d(after))
    return nn.Sequential(*parts, nn.LeakyReLU(_SLOPE))
